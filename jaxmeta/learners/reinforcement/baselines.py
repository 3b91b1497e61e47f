"""Advantages of one task's episodes, less what a linear function of time would expect.

Duan, Chen, Houthooft, Schulman, Abbeel. Benchmarking Deep Reinforcement Learning for
Continuous Control. ICML 2016, arXiv 1604.06778 (`LinearFeatureBaseline`): least squares of
the rewards to go on obs, obs^2, t/100, (t/100)^2, (t/100)^3 and 1, fitted to the very
episodes that it is subtracted from, as all code of MAML for reinforcement learning does.
"""

import jax
import jax.numpy as jnp

from jaxmeta import rollouts as recorded
from jaxmeta.rollouts import Rollouts

RIDGE = 1e-5  # features may repeat each other; of Duan et al.'s code


def features(obs: jax.Array) -> jax.Array:
    """What the baseline is linear in. [episodes, steps, n] -> [episodes, steps, 2n + 4]."""
    obs = jnp.clip(obs, -10, 10)  # as in their code: its square is not to explode
    t = jnp.arange(obs.shape[1], dtype=obs.dtype) / 100
    times = jnp.stack([t, t**2, t**3, jnp.ones_like(t)], axis=-1)
    times = jnp.broadcast_to(times, (*obs.shape[:2], 4))
    return jnp.concatenate([obs, obs**2, times], axis=-1)


def linear_baseline(rollouts: Rollouts, targets: jax.Array) -> jax.Array:
    """What least squares says of `targets`, at each step. [episodes, steps].

    Masked steps have no weight. The ridge is rows of the matrix, out of whose columns the
    targets are taken one after the other (modified Gram-Schmidt, which for the residual is
    as good as QR, where normal equations are not): batches of LAPACK's QR, two at once,
    wait for each other for ever on two CPU threads.
    """
    x = features(rollouts.obs) * rollouts.mask[..., None]
    y = jnp.reshape(targets * rollouts.mask, -1)
    n = x.shape[-1]
    rows = jnp.concatenate([x.reshape(-1, n), RIDGE**0.5 * jnp.eye(n, dtype=x.dtype)])

    def without(carry, k):
        columns, rest = carry
        q = columns[:, k] / jnp.linalg.norm(columns[:, k])
        return (columns - jnp.outer(q, q @ columns), rest - q * (q @ rest)), None

    start = rows, jnp.concatenate([y, jnp.zeros(n, y.dtype)])
    (_, rest), _ = jax.lax.scan(without, start, jnp.arange(n))
    return jnp.reshape(y - rest[:-n], targets.shape)


def linear_advantages(
    rollouts: Rollouts,
    *,
    discount: float = 0.99,
    trace: float = 1.0,
    normalise: bool = True,
) -> jax.Array:
    """Generalised advantage estimates of one task, [episodes, steps], constants.

    Args:
        rollouts: episodes of one task, each for itself: no reward counts for another.
        discount, trace: gamma and lambda of Schulman et al. 2016.
        normalise: to mean 0 and deviation 1 over the task's steps that count.
    """
    zero = rollouts._replace(value=jnp.zeros_like(rollouts.reward))
    expected = linear_baseline(rollouts, _by_episode(zero, discount, 1.0))
    found = _by_episode(rollouts._replace(value=expected), discount, trace)
    if normalise:
        found = recorded.normalised(found, rollouts)
    return jax.lax.stop_gradient(found * rollouts.mask)


def _by_episode(rollouts: Rollouts, discount: float, trace: float) -> jax.Array:
    """Advantages of episodes that are not parts of one trial, [episodes, steps]."""

    def alone(episode):
        trial = jax.tree.map(lambda a: a[None], episode)
        return recorded.advantages(trial, discount, trace)[0][0]

    return jax.vmap(alone)(rollouts)
