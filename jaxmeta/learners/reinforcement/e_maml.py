"""E-MAML: MAML that is credited for what it tried before it adapted.

Stadie, Yang, Houthooft, Chen, Duan, Wu, Abbeel, Sutskever. Some Considerations on Learning
to Explore via Meta-Reinforcement Learning. NeurIPS 2018, arXiv 1803.01118. *Per step* the
objective is the return J after an expected update, *per batch* the expected return after an
update by a random batch D:

    per step     J(theta + alpha E_D[g(D)])
    per batch    E_D[J(theta + alpha g(D))]

The derivative of the second has a part that the first has not: what is tried depends on
theta, and so does what is learned from it,

    E_D[sum log pi_theta(D)' J(theta + alpha g(D))].

Departures: that term is the sum over the steps of all support batches, times the mean reward
of a step after adapting less that of the other tasks. The authors' code,
github.com/episodeyang/e-maml, takes the mean of log pi times the mean advantage, which makes
of the term a weight to choose (theirs is 1); the code of ProMP scales it down as well, with
rewards that are normalised, and credits the first batch only. Inner gradients are not
clipped to norm 1; `jm.maml_rl` says the others.
"""

from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.envs.agent import Agent
from jaxmeta.envs.env import Env
from jaxmeta.learners.registry import register
from jaxmeta.learners.reinforcement import surrogates
from jaxmeta.learners.reinforcement.maml_rl import InnerRate, maml_rl
from jaxmeta.learners.reinforcement.surrogates import Surrogate
from jaxmeta.types import Model


@register(
    paper="Stadie et al. 2018, arXiv 1803.01118",
    learns=("reinforcement",),
    networks=lambda n: [n.predictor()],
    trains_on="trials",
    tiny={"inner_lr": 0.5},
    run={"tasks_per_step": 20, "episodes": 40, "epochs": 1, "minibatches": 1},
)
def e_maml(
    model: Model,
    env: Env,
    *,
    inner_lr: InnerRate = 0.05,
    inner_steps: int = 1,
    surrogate: Surrogate = surrogates.score,
    clip: float | None = 0.2,
    discount: float = 0.995,
    trace: float = 0.97,
    normalise: bool = True,
    init_std: float = 1.0,
    adjoint: Adjoint = MixedMode(),
) -> Agent:
    """E-MAML, trained by `jm.policy_gradient` or, with `clip=None`, by `jm.trpo`.

    The defaults are those of the authors' code, which takes one outer step (epochs=1,
    minibatches=1) of Adam on 20 tasks and 40 episodes a batch; it has 5 inner steps, with a
    note to go back to 1. After the first outer step on the same trials `score` is no
    longer right: then take `surrogates.importance`.

    Args:
        model: [n, obs_dims] -> [n, actions]: logits, or means of a Gaussian.
        env: whose observations it sees and whose actions it takes.
        inner_lr: alpha; a number, or a schedule of the inner step (0, 1, ...).
        inner_steps: updates of a trial, with new episodes for each.
        surrogate: what adaptation ascends, from `surrogates`.
        clip: of the outer ratio, as PPO; None = plain importance weights.
        discount: of the advantages, see `linear_advantages`.
        trace: of the advantages, lambda.
        normalise: the advantages of each task and batch; not those after adapting, since
            the credited returns are not.
        init_std: deviation of a `Box`'s actions before training.
        adjoint: how to differentiate through an inner step.

    Returns: an `Agent` as `jm.maml_rl`'s.
    Raises: as `jm.maml_rl`.

    >>> import jax, optax, jaxmeta as jm
    >>> env, network = jm.envs.corners(horizon=5), jm.models.mlp(2, 2, (4,))
    >>> outer = jm.policy_gradient(
    ...     jm.e_maml(network, env), env, optax.adam(1e-3),
    ...     tasks_per_step=4, episodes=2, minibatches=1)
    >>> state = jm.fit(outer, None, steps=2, key=jax.random.key(0))
    """
    return maml_rl(
        model,
        env,
        inner_lr=inner_lr,
        inner_steps=inner_steps,
        surrogate=surrogate,
        clip=clip,
        credit=True,
        discount=discount,
        trace=trace,
        normalise=normalise,
        init_std=init_std,
        adjoint=adjoint,
    )
