"""Distributions over actions, as what a network says of them.

Of `Discrete` actions a policy is logits [..., n]; of a `Box` the pair (mean [..., dims],
log of the standard deviation [..., dims]). The last axis is summed in log-probabilities.
"""

from typing import Any

import jax
import jax.numpy as jnp

Policy = Any  # logits, or (mean, log_std)


def sample(policy: Policy, key: jax.Array) -> jax.Array:
    """An action: int32 [...], or [..., dims]; of NaN -1, which is none, or NaN."""
    if isinstance(policy, tuple):
        mean, log_std = policy
        return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)
    drawn = jax.random.categorical(key, policy).astype(jnp.int32)
    # it draws 0 of NaN, and a policy that diverged would look like one that decided
    return jnp.where(jnp.isfinite(jnp.max(policy, axis=-1)), drawn, -1)


def log_prob(policy: Policy, action: jax.Array) -> jax.Array:
    """log pi(action) [...], in nats.

    >>> float(log_prob(jnp.log(jnp.array([0.25, 0.75])), jnp.array(0)))  # log 1/4
    -1.3862943649291992
    """
    if isinstance(policy, tuple):
        mean, log_std = policy
        z = (action - mean) * jnp.exp(-log_std)
        return jnp.sum(-0.5 * jnp.square(z) - log_std - 0.5 * jnp.log(2 * jnp.pi), -1)
    logs = jax.nn.log_softmax(policy)
    return jnp.take_along_axis(logs, action[..., None], axis=-1)[..., 0]


def entropy(policy: Policy) -> jax.Array:
    """In nats, [...]."""
    if isinstance(policy, tuple):
        _, log_std = policy
        return jnp.sum(log_std + 0.5 * (1 + jnp.log(2 * jnp.pi)), axis=-1)
    logs = jax.nn.log_softmax(policy)
    return -jnp.sum(jnp.exp(logs) * logs, axis=-1)


def divergence(p: Policy, q: Policy) -> jax.Array:
    """KL(p || q) in nats, [...]."""
    if isinstance(p, tuple):
        (m, s), (n, t) = p, q
        apart = jnp.exp(2 * (s - t)) + jnp.square((m - n) * jnp.exp(-t)) - 1
        return jnp.sum(t - s + 0.5 * apart, axis=-1)
    a, b = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
    return jnp.sum(jnp.exp(a) * (a - b), axis=-1)
