"""Prototypes and graphs that transductive learners share."""

import jax
import jax.numpy as jnp

from jaxmeta.learners.features import class_means, cosines, mask_absent_classes


def rectified(z, onehot, q, weights, epsilon):
    """Prototypes and queries without their biases (Liu et al. 2020, arXiv 1911.10713).

    Args: z [n, features], onehot [n, ways] of the support; q [m, features] queries,
        weights [m] 1 or 0; epsilon.
    Returns: p' [ways, features], shifted q, shots [ways].
    """
    counts = jnp.sum(onehot, axis=1)
    q = jnp.where(weights[:, None] > 0, q, 0)  # padding may be NaN
    mean = lambda a, w: w @ a / jnp.maximum(jnp.sum(w), 1)
    q = q + (mean(z, counts) - mean(q, weights))[None, :]
    q = jnp.where(weights[:, None] > 0, q, 0)
    p, shots = class_means(z, onehot)
    nearest = jnp.argmax(mask_absent_classes(cosines(q, p), shots), axis=1)
    pseudo = jax.nn.one_hot(nearest, len(p), dtype=q.dtype) * weights[:, None]
    x, member = jnp.concatenate([z, q]), jnp.concatenate([onehot, pseudo])
    scores = jnp.where(member > 0, epsilon * cosines(x, p), -1e30)
    w = jax.nn.softmax(scores, axis=0) * member  # a class without members gets zeros
    return w.T @ x, q, shots


def neighbours(distances: jax.Array, weights: jax.Array, number: int) -> jax.Array:
    """A graph of neighbours (Ziko et al. 2020, arXiv 2006.15486, eq. 1).

    Args: distances [m, m]; weights [m], 0 = padding.
    Returns: [m, m], 1 if p is among the `number` nearest of q, itself and padding left out.
    """
    out = jnp.eye(len(distances), dtype=bool) | (weights[None, :] == 0)
    near = jnp.where(out, jnp.inf, distances)
    last = -jax.lax.top_k(-near, min(number, len(near)))[0][:, -1:]
    w = (near <= last) & ~out
    return (w & (weights[:, None] > 0)).astype(distances.dtype)
