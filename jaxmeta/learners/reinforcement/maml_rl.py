"""MAML for reinforcement learning: a policy that a few policy gradients suffice for.

Finn, Abbeel, Levine. Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks.
ICML 2017, arXiv 1703.03400. Algorithm 3, with U_i a surrogate of task i's return:

    theta'_i = theta + alpha grad_theta U_i(pi_theta)             (inner, on support)
    theta   <- theta + beta  grad_theta sum_i U_i(pi_theta'_i)    (outer, on query)

The support episodes of each inner step are played by the policy that the step before made,
the query episodes by the last; all of them then are data. What is differentiated twice is
the inner surrogate (`surrogates`): `score` is the authors', `lvc` and its form for several
outer updates, `importance`, are ProMP's (Rothfuss et al. 2019, arXiv 1810.06784),
`loaded_dice` is exact. With `credit` the objective is E-MAML's.

Departures:
- The outer step is Adam on clipped or plain importance weights, several updates on one
  batch of episodes; the authors take one natural gradient with a line search (TRPO).
- Sums over steps are divided by the horizon, not by the steps that count, see `surrogates`.

Meta-parameters: theta, the model's; of `Box` actions also the log of their deviations.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, keys, rollouts
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.boundary import remembered
from jaxmeta.envs.env import Env
from jaxmeta.learners.reinforcement import surrogates
from jaxmeta.learners.reinforcement.actor import Actor, actor
from jaxmeta.learners.reinforcement.baselines import linear_advantages
from jaxmeta.learners.reinforcement.credit import credit as credit_of
from jaxmeta.learners.reinforcement.credit import less_others
from jaxmeta.learners.reinforcement.practice import Move, mover, practice
from jaxmeta.learners.reinforcement.surrogates import Surrogate
from jaxmeta.outer import descended, state_of
from jaxmeta.task_axis import over_tasks
from jaxmeta.types import Model, Outer


@remembered
def maml_rl(
    model: Model,
    env: Env,
    optimizer: optax.GradientTransformation | None = None,
    *,
    inner_lr: float | optax.Schedule = 0.1,
    inner_steps: int = 1,
    episodes: int = 20,
    tasks_per_step: int = 40,
    surrogate: Surrogate = surrogates.importance,
    clip: float | None = 0.3,
    updates: int = 5,
    credit: bool = False,
    discount: float = 0.99,
    trace: float = 1.0,
    normalise: bool = True,
    init_std: float = 1.0,
    adjoint: Adjoint = MixedMode(),
) -> Outer:
    """MAML for reinforcement learning, as the training procedure that `fit` runs.

    Args:
        model: [n, obs_dims] -> [n, actions]: logits, or means of a Gaussian.
        env: whose tasks are drawn, so that `fit` gets no sampler (None).
        optimizer: the outer one; None = Adam with step size 1e-3.
        inner_lr: alpha; a number, or a schedule of the inner step (0, 1, ...).
        inner_steps: updates of adaptation, with new episodes for each.
        episodes: of a task, before each update and after the last.
        tasks_per_step: tasks of a meta-step.
        surrogate: what adaptation ascends, from `surrogates`. `importance` is `lvc` that
            stays right in the later `updates`; of the two DiCE take `loaded_dice`, since
            what it gets are advantages.
        clip: of the outer ratio, as PPO; None = plain importance weights.
        updates: of the outer optimiser on one batch of episodes.
        credit: whether what was tried is credited with what was learned from it (E-MAML);
            the value of that term is the mean reward a step after adapting, less that of
            the other tasks. It is of the first update: later ones differ from it.
        discount, trace, normalise: of the advantages, see `linear_advantages`. With credit
            those after adapting are never normalised, since the credited returns are not.
        init_std: deviation of a `Box`'s actions before training.
        adjoint: how to differentiate through an inner step.

    Returns: an `Outer` for `jm.fit(outer, None, ...)`, states `MetaState`; metrics:
        `objective`, mean over the updates of what is descended; `return_before`,
        `return_after`, mean returns of an episode; `skipped`.
    Raises: ValueError for sizes below 1, a model that does not fit the environment, or an
        adjoint that gives no gradient for an initialisation.
    """
    checks.check_sizes(tasks_per_step=tasks_per_step, updates=updates)
    checks.check_sizes(0, inner_steps=inner_steps)
    checks.check_flags(credit=credit, normalise=normalise)
    checks.check_numbers(least=0, most=1, discount=discount, trace=trace)
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer
    checks.check_optimizer(optimizer)
    player = actor(model, env, episodes, init_std)
    move = mover(player, surrogate, inner_lr, adjoint)
    weigh = functools.partial(linear_advantages, discount=discount, trace=trace)
    before = functools.partial(weigh, normalise=normalise)
    last = functools.partial(weigh, normalise=normalise and not credit)
    play = practice(player, move, [before] * inner_steps + [last])
    judged = _judge(player, move, clip, credit)

    def step(state, sampler, key):
        del sampler  # tasks are the environment's
        key_tasks, key_play = keys.parts(key)
        tasks = jax.vmap(env.sample)(keys.tasks(key_tasks, tasks_per_step))
        lone = functools.partial(play, state.params)
        batches = over_tasks(lone)(tasks, keys.tasks(key_play, tasks_per_step))
        after = less_others(_mean_reward(batches[-1][0]))

        def objective(params):
            of_task = functools.partial(judged, params)
            return -jnp.mean(over_tasks(of_task)(batches, after))

        def update(state, _):
            value, grads = jax.value_and_grad(objective)(state.params)
            state, skipped = descended(optimizer, state, grads, value)
            return state, {"objective": value} | skipped

        done, told = jax.lax.scan(update, state, length=updates)
        told = {name: jnp.mean(each) for name, each in told.items()}
        for when, (played, _) in ("before", batches[0]), ("after", batches[-1]):
            told[f"return_{when}"] = jnp.mean(rollouts.returns(played))
        return done._replace(step=state.step + 1), told

    return Outer(lambda key: state_of(player.init(key), optimizer), jax.jit(step))


def _judge(player: Actor, move: Move, clip: float | None, credit: bool) -> Callable:
    """What the outer loop ascends: (params, batches, after []) -> value []."""
    if clip is None:
        outer = surrogates.importance
    else:
        checks.check_positive(clip=clip)
        outer = functools.partial(surrogates.ppo_clip, clip=clip)

    def judged(params, batches, after):
        w, value = params, 0.0
        for k, batch in enumerate(batches[:-1]):
            if credit:
                value += credit_of(player.log_probs(w, batch[0]), batch[0], after)
            w = move(w, k, batch)
        query, advantages = batches[-1]
        return value + outer(player.log_probs(w, query), query, advantages)

    return judged


def _mean_reward(played: rollouts.Rollouts) -> jax.Array:
    """A step, of each task: [tasks, episodes, steps] -> [tasks]."""
    return jnp.mean(played.reward * played.mask, axis=(1, 2))
