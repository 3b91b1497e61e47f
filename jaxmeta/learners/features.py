"""Features of a support set, and what is computed with them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.batches import forward, one_hot
from jaxmeta.types import (
    Batch,
    Model,
    PyTree,
)


class SupportFeatures(NamedTuple):
    """An adapted learner that keeps its support set: features and labels."""

    params: PyTree
    z: jax.Array  # [examples, ...] features
    onehot: jax.Array  # [examples, ways] one-hot labels, rows of 0 for padding


def embed_support(
    encoder: Model, params: PyTree, support: Batch, ways: int
) -> tuple[jax.Array, jax.Array]:
    """A classification support set, seen by an encoder.

    Returns: z [examples, ...], features, 0 for padding; onehot [examples, ways], one-hot
        labels, rows of 0 for padding and for unlabelled examples.
    """
    z = forward(encoder, params, support.x, support.mask)
    if support.mask is not None:
        keep = jnp.reshape(support.mask > 0, (-1,) + (1,) * (z.ndim - 1))
        z = jnp.where(keep, z, 0)
    return z, one_hot(support.y, ways, support.mask, z.dtype)


def class_means(z: jax.Array, onehot: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Means of each class: z [n, ...], onehot [n, ways] -> [ways, ...], shots [ways].

    `onehot` may be weights between 0 and 1; a class without any has mean 0.
    """
    shots = jnp.sum(onehot, axis=0)
    total = jnp.tensordot(onehot, z, axes=(0, 0))
    least = jnp.where(shots > 0, shots, 1)
    return total / jnp.reshape(least, (-1,) + (1,) * (z.ndim - 1)), shots


def mean_of(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean over the examples that count: [n, features] -> [features]."""
    if mask is None:
        return jnp.mean(values, axis=0)
    counts = mask > 0
    total = jnp.sum(jnp.where(counts[:, None], values, 0), axis=0)
    return total / jnp.maximum(jnp.sum(counts), 1).astype(total.dtype)


def weights_of(mask: jax.Array | None, like: jax.Array) -> jax.Array:
    """[n] of 1 where an example counts and 0 where it is padding."""
    if mask is None:
        return jnp.ones(len(like), like.dtype)
    return (mask > 0).astype(like.dtype)


def squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """[n, features], [m, features] -> [n, m]; differences first, so that far-away
    clusters lose no digits to cancellation."""
    return jnp.sum(jnp.square(a[:, None, :] - b[None, :, :]), axis=-1)


def unit(z: jax.Array) -> jax.Array:
    """Vectors [..., features] of length 1; a zero vector stays zero, safely."""
    return z * jax.lax.rsqrt(jnp.sum(jnp.square(z), axis=-1, keepdims=True) + 1e-12)


def cosines(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine similarities: [n, features], [m, features] -> [n, m]."""
    return unit(a) @ unit(b).T


def mask_absent_classes(logits: jax.Array, shots: jax.Array) -> jax.Array:
    """Logits [n, ways], -inf for a class without support examples (shots [ways] 0)."""
    return jnp.where(shots[None, :] > 0, logits, -jnp.inf)


def sized(encoder: Model, features: int) -> Model:
    """The encoder, which says so if it does not make `features` numbers of an example.

    Raises: ValueError for no encoder, or features below 1.
    """
    checks.check_sizes(features=features)
    return flat(encoder, features)


def flat(encoder: Model, features: int | None = None) -> Model:
    """The encoder, which says so if its outputs are not [examples, features].

    features: None = as many as it makes. Raises: ValueError for no encoder.
    """
    checks.check_models(encoder=encoder)
    noisy = encoder.noisy and _Sized(encoder.noisy, features)
    return encoder._replace(apply=_Sized(encoder.apply, features), noisy=noisy)


@dataclass(frozen=True)
class _Sized:
    """A forward pass, checked; equal for equal networks, so compiled once for them."""

    forward: Callable[..., Any]
    features: int | None

    def __call__(self, params, x, *args, **kwargs):
        z = self.forward(params, x, *args, **kwargs)
        got = z.shape[1:]
        if len(got) != 1:
            raise ValueError(
                f"encoder: expected outputs [examples, features], got shape {z.shape}; this "
                "learner takes an encoder with flat outputs, e.g. conv4(None)"
            )
        if self.features not in (None, *got):
            raise ValueError(
                f"features: expected an encoder that makes {self.features} numbers of an "
                f"example, got {got[0]}; give the learner features={got[0]}"
            )
        return z
