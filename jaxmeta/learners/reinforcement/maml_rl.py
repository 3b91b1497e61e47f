"""MAML for reinforcement learning: a policy that a few policy gradients suffice for.

Finn, Abbeel, Levine. Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks.
ICML 2017, arXiv 1703.03400. Algorithm 3, with U_i a surrogate of task i's return:

    theta'_i = theta + alpha grad_theta U_i(pi_theta)             (inner, on support)
    theta   <- theta + beta  grad_theta sum_i U_i(pi_theta'_i)    (outer, on query)

The support episodes of each inner step are played by the policy that the step before made,
the query episodes by the last; all of them then are data. What is differentiated twice is
the inner surrogate (`surrogates`): `score` is the authors', `lvc` and its form for several
outer updates, `importance`, are ProMP's (Rothfuss et al. 2019, arXiv 1810.06784),
`loaded_dice` is exact. The outer step is `jm.trpo`, as the authors', or
`jm.policy_gradient` on clipped or plain importance weights.

Departures: sums over steps are divided by the horizon, not by the steps that count, see
`surrogates`.

Meta-parameters: theta, the model's; of `Box` actions also the log of their deviations.
"""

import functools

import jax.numpy as jnp
import optax

from jaxmeta import checks, inner
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.envs.env import Env
from jaxmeta.learners.registry import register
from jaxmeta.learners.reinforcement import surrogates
from jaxmeta.learners.reinforcement.actor import actor
from jaxmeta.learners.reinforcement.baselines import linear_advantages
from jaxmeta.learners.reinforcement.surrogates import Surrogate
from jaxmeta.rollouts import Agent, batches_of, mean
from jaxmeta.types import Model

InnerRate = float | optax.Schedule


@register(
    paper="Finn et al. 2017, arXiv 1703.03400",
    learns=("reinforcement",),
    networks=lambda n: [n.predictor()],
    trains_on="trials",
    run={"tasks_per_step": 20, "episodes": 20, "epochs": 5, "minibatches": 1},
)
def maml_rl(
    model: Model,
    env: Env,
    *,
    inner_lr: InnerRate = 0.1,
    inner_steps: int = 1,
    surrogate: Surrogate = surrogates.importance,
    clip: float | None = 0.3,
    credit: bool = False,
    penalty: float = 0.0,
    discount: float = 0.99,
    trace: float = 1.0,
    normalise: bool = True,
    init_std: float = 1.0,
    adjoint: Adjoint = MixedMode(),
) -> Agent:
    """MAML for reinforcement learning.

    Args:
        model: [n, obs_dims] -> [n, actions]: logits, or means of a Gaussian.
        env: whose observations it sees and whose actions it takes.
        inner_lr: alpha; a number, or a schedule of the inner step (0, 1, ...).
        inner_steps: updates of a trial, with new episodes for each.
        surrogate: what adaptation ascends, from `surrogates`. `importance` is `lvc` that
            stays right in several outer updates on the same episodes; of the two DiCE take
            `loaded_dice`, since what it gets are advantages.
        clip: of the outer ratio, as PPO; None = plain importance weights.
        credit: whether what was tried is credited with what was learned from it, see
            `e_maml`; the value of that term is the mean reward a step after adapting, less
            that of the other tasks.
        penalty: weight of the divergence from the policies that acted before the last
            update, mean over the inner steps, see `promp`.
        discount: of the advantages, see `linear_advantages`.
        trace: of the advantages, lambda.
        normalise: the advantages of each task and batch to mean 0 and deviation 1; with
            credit not those after adapting, since the credited returns are not.
        init_std: deviation of a `Box`'s actions before training.
        adjoint: how to differentiate through an inner step.

    Returns: an `Agent` without memory; `adapted` is a tree like `params`; `adapt` takes as
        many steps as it is given batches. What its `loss` tells: `divergence`, from the
        policy that acted after the updates.
    Raises: ValueError for numbers out of range, a model that does not fit the environment,
        or an adjoint that gives no gradient for an initialisation.
    """
    checks.check_functions(surrogate=surrogate)
    checks.check_sizes(0, inner_steps=inner_steps)
    checks.check_flags(credit=credit, normalise=normalise)
    checks.check_numbers(least=0, most=1, discount=discount, trace=trace)
    checks.check_numbers(least=0, penalty=penalty)
    player = actor(model, env, init_std)
    rate = _rates(inner_lr)
    weigh = functools.partial(linear_advantages, discount=discount, trace=trace)
    outer = _outer(clip)

    def objective(w, context, batch):
        played, advantages = batch
        return -surrogate(player.log_probs(w, played), played, advantages)

    descend = inner.descent("maml_rl", objective, steps=1, adjoint=adjoint)

    def move(w, k, played):
        batch = played, weigh(played, normalise=normalise)
        return descend(w, (), batch, hyper=rate(k))

    def adapt(params, support=None, key=None):
        del key  # not random
        w = params
        for k, played in enumerate(batches_of(support)):
            w = move(w, k, played)
        return w

    def loss(params, batches, others=0.0):
        *support, query = batches
        after = mean(query.reward, query) - others
        w, value = params, 0.0
        weight = penalty / max(len(support), 1)
        for k, played in enumerate(support):
            logs = player.log_probs(w, played)
            value += surrogates.credit(logs, played, after) if credit else 0.0
            value -= weight * surrogates.divergence(logs, played) if penalty else 0.0
            w = move(w, k, played)
        logs = player.log_probs(w, query)
        gain = outer(logs, query, weigh(query, normalise=normalise and not credit))
        return -(value + gain), {"divergence": surrogates.divergence(logs, query)}

    return Agent(
        player.init, adapt, None, player.act, player.predict, loss, inner_steps
    )


def _rates(inner_lr: InnerRate) -> optax.Schedule:
    """The step size of each inner step."""
    if callable(inner_lr):
        inner.check_schedule(inner_lr)
        return inner_lr
    checks.check_numbers(least=0, inner_lr=inner_lr)
    return lambda k: jnp.asarray(inner_lr)


def _outer(clip: float | None) -> Surrogate:
    """What the outer loop ascends in the last batch."""
    if clip is None:
        return surrogates.importance
    checks.check_positive(clip=clip)
    return functools.partial(surrogates.ppo_clip, clip=clip)
