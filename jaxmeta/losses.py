"""Losses of one example, and their means over the examples that count.

A loss is `loss(outputs, targets) -> [examples, ...]`, as in optax; any function of
that shape can be given to a learner. The means know about masks.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta.types import Batch, Metrics

Loss = Callable[[Any, jax.Array], jax.Array]


def cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Softmax cross-entropy, in nats.

    Args: outputs [examples, ways] logits; targets [examples] integers in 0..ways-1.
    Returns: [examples]. A label out of range gives NaN, never a wrong number.

    >>> import jax.numpy as jnp
    >>> float(cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))[0])  # log 4
    1.3862943649291992
    """
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)


def mse(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared error, in squared units of the targets (no factor 1/2).

    Args: outputs and targets [examples, dims], of one shape.
    Returns: [examples, dims]; the mean over both is the mean squared error.
    Raises: ValueError if the shapes differ: (n,) against (n, 1) would broadcast to n x n.
    """
    if outputs.shape != targets.shape:
        raise ValueError(
            f"mse: outputs have shape {outputs.shape}, targets {targets.shape}; expected "
            "one shape, e.g. [examples, 1] for both"
        )
    return jnp.square(outputs - targets)


def mean(values: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Mean over all entries of the examples whose mask is not 0.

    Args: values [examples, ...]; mask [examples] or None. Returns: [].
    """
    if mask is None or values.ndim == 0:
        if values.ndim == 0 and mask is not None:
            raise ValueError(
                "loss: with a mask the loss must return one value an example, got a "
                "scalar; leave the mean to the learner"
            )
        return jnp.mean(values)
    per_example = jnp.mean(jnp.reshape(values, (values.shape[0], -1)), axis=1)
    counts = mask > 0
    total = jnp.sum(jnp.where(counts, per_example, 0))
    return total / jnp.maximum(jnp.sum(counts), 1).astype(total.dtype)


def mean_loss(loss: Loss, outputs, batch: Batch) -> jax.Array:
    """The mean loss of a batch, padding left out. Returns: []."""
    return mean(loss(outputs, batch.y), batch.mask)


def score(outputs: jax.Array, batch: Batch) -> Metrics:
    """What a person reads: accuracy in 0..1 for integer targets, else nothing more."""
    if not jnp.issubdtype(batch.y.dtype, jnp.integer):
        return {}
    correct = jnp.argmax(outputs, axis=-1) == batch.y
    return {"accuracy": mean(correct.astype(outputs.dtype), batch.mask)}
