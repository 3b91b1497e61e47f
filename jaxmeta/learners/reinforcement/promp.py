"""ProMP: proximal meta-policy search, several outer steps on the same trials.

Rothfuss, Lee, Clavera, Asfour, Abbeel. ProMP: Proximal Meta-Policy Search. ICLR 2019,
arXiv 1810.06784. Section 6 and algorithm 1, with r the ratio of the policy to the one that
acted, A the advantages and eta the weight of a penalty:

    theta' = theta + alpha grad_theta E[r A]                      (inner; J^LR)
    theta <- theta + beta grad_theta (E[min(r' A', clip(r') A')]
                                      - eta KL(policy that acted || policy))

The inner objective has the value and derivatives of low-variance curvature where the
episodes were played, and stays right in the outer steps after the first. The first outer
gradient is that of `lvc`: there the clipping is idle and the divergence has no slope.

As in the authors' code, github.com/jonasrothfuss/ProMP: the penalty is of the policies that
played the support episodes, not the query, and the mean over the inner steps.

Departures: the divergence is estimated from the actions that were taken, E[r - 1 - log r],
the authors compute it from the distributions, which `Rollouts` do not hold; its weight is
not adapted, as theirs is not in their experiments; `jm.maml_rl` says the others.
"""

from jaxmeta import checks
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.envs.agent import Agent
from jaxmeta.envs.env import Env
from jaxmeta.learners.registry import register
from jaxmeta.learners.reinforcement import surrogates
from jaxmeta.learners.reinforcement.maml_rl import InnerRate, maml_rl
from jaxmeta.types import Model


@register(
    paper="Rothfuss et al. 2019, arXiv 1810.06784",
    learns=("reinforcement",),
    networks=lambda n: [n.predictor()],
    trains_on="trials",
    run={"tasks_per_step": 40, "episodes": 20, "epochs": 5, "minibatches": 1},
)
def promp(
    model: Model,
    env: Env,
    *,
    inner_lr: InnerRate = 0.1,
    inner_steps: int = 1,
    clip: float = 0.3,
    penalty: float = 5e-4,
    discount: float = 0.99,
    trace: float = 1.0,
    normalise: bool = True,
    init_std: float = 1.0,
    adjoint: Adjoint = MixedMode(),
) -> Agent:
    """ProMP, to be trained by `jm.policy_gradient(..., epochs=5, minibatches=1)`.

    The defaults are those of the authors' scripts, as are Adam with a rate of 1e-3, 40
    tasks a step, 20 episodes a batch and a tanh network of 64-64. There an action of 10 is
    the largest move (`jm.envs.corners(bound=10)`), so their deviation of 1 is a tenth of it.

    Args:
        model: [n, obs_dims] -> [n, actions]: logits, or means of a Gaussian.
        env: whose observations it sees and whose actions it takes.
        inner_lr: alpha; a number, or a schedule of the inner step (0, 1, ...).
        inner_steps: updates of a trial, with new episodes for each.
        clip: of the outer ratio, to 1 - clip..1 + clip.
        penalty: eta, of nats a step.
        discount: of the advantages, see `linear_advantages`.
        trace: of the advantages, lambda.
        normalise: the advantages of each task and batch.
        init_std: deviation of a `Box`'s actions before training.
        adjoint: how to differentiate through an inner step.

    Returns: an `Agent` as `jm.maml_rl`'s.
    Raises: as `jm.maml_rl`.

    >>> import jax, optax, jaxmeta as jm
    >>> env, network = jm.envs.corners(bound=10, horizon=5), jm.models.mlp(2, 2, (4,))
    >>> outer = jm.policy_gradient(
    ...     jm.promp(network, env), env, optax.adam(1e-3),
    ...     tasks_per_step=4, episodes=2, epochs=5, minibatches=1)
    >>> state = jm.fit(outer, None, steps=2, key=jax.random.key(0))
    """
    checks.check_positive(clip=clip)
    return maml_rl(
        model,
        env,
        inner_lr=inner_lr,
        inner_steps=inner_steps,
        surrogate=surrogates.importance,
        clip=clip,
        penalty=penalty,
        discount=discount,
        trace=trace,
        normalise=normalise,
        init_std=init_std,
        adjoint=adjoint,
    )
