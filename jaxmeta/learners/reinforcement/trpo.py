"""A trust region: an outer step of agents that bounds how far their policies move.

Schulman, Levine, Moritz, Jordan, Abbeel. Trust Region Policy Optimization. ICML 2015,
arXiv 1502.05477, section 6 and appendix C; as the outer step of MAML, Finn et al. 2017,
arXiv 1703.03400, section 5.3. With L the agent's loss, theta its parameters and D the mean
divergence KL(policy that acted || policy) in the last batches, after all updates:

    g = grad L(theta),   H = grad^2 D(theta)
    s = (H + damping I)^-1 g,                          by conjugate gradients
    beta = sqrt(2 max_kl / g's),                       so that D is about max_kl
    theta <- theta - shrink^k beta s,                  k = 0, 1, ...: the first for which
                                                       D <= max_kl and L is less; or none

D is computed from the distributions, not from the actions drawn of them, and H goes through
the agent's updates. Its products with vectors are reverse over reverse, since adjoints of
inner steps may have no forward derivative; at theta, where D has its minimum, they are exact.

Departures: g's in place of s'(H + damping I)s, the same for an s of conjugate gradients, one
product fewer. The code of rllab, which MAML's is made of, takes products with H by finite
differences, and stops conjugate gradients at a residual of 1e-5, ours at 1e-10 of |g|.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, policies
from jaxmeta.boundary import remembered
from jaxmeta.envs.agent import Agent
from jaxmeta.envs.env import Env
from jaxmeta.learners.reinforcement.trials import (
    Trials,
    check_agent,
    collector,
    mean_loss,
    told_of,
)
from jaxmeta.outer import MetaState
from jaxmeta.task_axis import over_tasks
from jaxmeta.types import Outer, PyTree


def _divergence(agent: Agent, params: PyTree, trials: Trials) -> Callable:
    """D: (other params) -> [], in nats, mean over tasks and steps that count."""
    assert agent.predict is not None
    predict = agent.predict

    def policy(params, batches):
        *support, last = batches
        return predict(agent.adapt(params, tuple(support)), last)[0]

    says = lambda params: over_tasks(partial(policy, params))(trials.batches)
    acted = jax.lax.stop_gradient(says(params))
    counts = trials.batches[-1].mask > 0
    return lambda params: jnp.mean(
        policies.divergence(acted, says(params)), where=counts
    )


def _full_step(
    d: Callable,
    theta: PyTree,
    g: PyTree,
    max_kl: float,
    iterations: int,
    damping: float,
) -> PyTree:
    """- beta s."""
    _, product = jax.vjp(jax.grad(d), theta)
    damped = lambda v: jax.tree.map(lambda h, v: h + damping * v, product(v)[0], v)
    cg = jax.scipy.sparse.linalg.cg
    s, _ = cg(damped, g, tol=1e-10, maxiter=iterations)
    along = jnp.asarray(optax.tree.vdot(g, s))
    # of no gradient no step; of an s that rounding turned uphill one that is refused
    beta = jnp.sqrt(2 * max_kl / jnp.maximum(along, jnp.finfo(along.dtype).tiny))
    return jax.tree.map(lambda s: -beta * s, s)


def _search(
    good: Callable, theta: PyTree, step: PyTree, backtracks: int, shrink: float
) -> tuple[PyTree, jax.Array]:
    """The first of theta + shrink^k step that is good, else theta itself; whether any."""

    def attempt(carry):
        k, step, _, _ = carry
        there = jax.tree.map(jnp.add, theta, step)
        found = good(there)
        kept = jax.tree.map(lambda new, old: jnp.where(found, new, old), there, theta)
        return k + 1, jax.tree.map(lambda s: shrink * s, step), kept, found

    def goes_on(carry):
        k, _, _, found = carry
        return ~found & (k < backtracks)

    start = 0, step, theta, jnp.array(False)
    _, _, kept, found = jax.lax.while_loop(goes_on, attempt, start)
    return kept, found


@remembered
def trpo(
    agent: Agent,
    env: Env,
    *,
    tasks_per_step: int = 40,
    episodes: int = 20,
    max_kl: float = 0.01,
    cg_iterations: int = 10,
    damping: float = 1e-5,
    backtracks: int = 15,
    shrink: float = 0.8,
) -> Outer:
    """Collect trials, then take one step inside a trust region.

    The line search believes the agent's `loss`: let it be a surrogate without clipping,
    `jm.maml_rl(..., clip=None)`. Where the policy acted, a clipped one has the same
    gradient; further off it is flat, so that the search sees less gain than there is.

    A parameter that the policy does not depend on, as a head that tells the value, has no
    curvature but the damping, and its part of the step is as large as that is small: of
    such an agent take a larger damping, or none of its value's loss, `jm.rl2(value=0)`.

    Args:
        agent, env: who acts, and where.
        tasks_per_step: trials of a step, a new task each.
        episodes: of a batch; a trial has `agent.updates` + 1 of these.
        max_kl: the region, in nats a step of the last batches.
        cg_iterations, damping: of conjugate gradients; damping >= 0. Where policies have
            become sure of their actions D is nearly flat, and 1e-2 makes better steps.
        backtracks, shrink: steps that are tried, each that part (in (0, 1)) of the one
            before. The defaults of these four are rllab's.

    Returns: an `Outer` for `jm.fit(outer, None, ...)`, states `MetaState` with nothing of
        an optimiser; metrics: `return`, `return_0`, ..., see `jm.policy_gradient`;
        `objective` and what else the agent's `loss` tells, before the step; `divergence`,
        D after it; `rejected`, 1 if no step was good, `skipped`, 1 if the gradient was not
        finite: then the parameters are the same bit for bit.
    Raises: ValueError for numbers out of range, an agent that nothing can train, or an
        environment whose shapes change.

    >>> import jax, jaxmeta as jm
    >>> env, network = jm.envs.navigation(horizon=5), jm.models.mlp(2, 2, (4,))
    >>> agent = jm.maml_rl(network, env, clip=None)
    >>> outer = jm.trpo(agent, env, tasks_per_step=4, episodes=2)
    >>> state = jm.fit(outer, None, steps=2, key=jax.random.key(0))
    """
    check_agent(agent, env)
    checks.check_positive(max_kl=max_kl)
    checks.check_sizes(cg_iterations=cg_iterations, backtracks=backtracks)
    checks.check_numbers(least=0, damping=damping)
    checks.check_numbers(above=0, below=1, shrink=shrink)
    collect = collector(agent, env, tasks_per_step, episodes)
    mean = mean_loss(agent)

    def step(state: MetaState, sampler, key):
        del sampler  # tasks are the environment's
        theta = state.params
        trials = collect(theta, key)
        (value, told), g = jax.value_and_grad(mean, has_aux=True)(theta, trials)
        d = _divergence(agent, theta, trials)
        good = lambda there: (mean(there, trials)[0] < value) & (d(there) <= max_kl)
        full = _full_step(d, theta, g, max_kl, cg_iterations, damping)
        after, found = _search(good, theta, full, backtracks, shrink)
        sound = jnp.isfinite(optax.tree.norm(g))
        told |= {"objective": value, "divergence": d(after)} | told_of(trials)
        told |= {"rejected": sound & ~found, "skipped": ~sound}
        told = jax.tree.map(lambda a: a.astype(value.dtype), told)
        return MetaState(after, (), state.step + 1), told

    def init(key):
        return MetaState(agent.init(key), (), jnp.zeros((), jnp.int32))

    return Outer(init, jax.jit(step))
