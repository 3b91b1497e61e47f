"""What learners of a labelled source and an unlabelled target share.

The support set of such a task holds both domains: an example labelled `UNLABELLED` is the
target's, every other the source's. Query examples are the target's. A learner adapts by
training a network on the support set, from meta-learned parameters; the labels of the
target are nowhere in it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.batches import examples, forward, one_hot
from jaxmeta.learners.features import mask_absent_classes, weights_of
from jaxmeta.models.parameters import glorot
from jaxmeta.types import UNLABELLED, Batch, Model, PredictFn, PyTree


class Network(NamedTuple):
    """A classifier in two parts."""

    encoder: PyTree
    w: jax.Array  # [features, ways]
    b: jax.Array  # [ways]


class Adapted(NamedTuple):
    """What `predict` needs."""

    network: Network
    shots: jax.Array  # [ways] source examples of each class


class Seen(NamedTuple):
    """A batch of both domains, as a network sees it."""

    z: jax.Array  # [n, features]
    logits: jax.Array  # [n, ways]
    labels: jax.Array  # [n], -1 = unlabelled
    source: jax.Array  # [n] 1 = of the source, 0 = not, or padding
    target: jax.Array  # [n] 1 = of the target
    x: PyTree = None  # [n, ...] inputs
    now: Any = None  # a `Seen`: the same as constants of a step's gradient, if wanted
    progress: jax.Array | float = 0.0  # [] how far training is, from 0 to 1


def sides(support: Batch, dtype) -> tuple[jax.Array, jax.Array]:
    """[n] of the source, [n] of the target: 1, or 0 for the other's and for padding."""
    counts = weights_of(support.mask, jnp.zeros(examples(support), dtype))
    unlabelled = (support.y == UNLABELLED).astype(dtype)
    return counts * (1 - unlabelled), counts * unlabelled


def averaged(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean of values [n, ...] where weights [n] are 1; 0 of none."""
    total = jnp.tensordot(weights, values, axes=1)
    return total / jnp.maximum(jnp.sum(weights), 1)


def source_loss(seen: Seen) -> jax.Array:
    """Mean cross-entropy of the source."""
    log_p = jax.nn.log_softmax(seen.logits, axis=1)
    labels = jnp.maximum(seen.labels, 0)
    right = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return averaged(-right, seen.source)


def domain_logits(discriminator: Model, params: PyTree, z: jax.Array) -> jax.Array:
    """The logits [n] of "of the target".

    Raises: ValueError for a discriminator that gives no single one.
    """
    logits = forward(discriminator, params, z)
    if logits.shape != (len(z), 1):
        raise ValueError(
            "discriminator: expected one logit an example, [examples, 1], got shape "
            f"{logits.shape}; its last layer has one output"
        )
    return logits[:, 0]


def domain_loss(
    discriminator: Model, params: PyTree, z: jax.Array, seen: Seen
) -> jax.Array:
    """Cross-entropy of "of the target", each domain half of it."""
    logits = domain_logits(discriminator, params, z)
    of_source = averaged(jax.nn.softplus(logits), seen.source)
    return (of_source + averaged(jax.nn.softplus(-logits), seen.target)) / 2


def classify(encoder: Model) -> Callable:
    """(network, x, mask) -> z [n, features], logits [n, ways]."""

    def run(network, x, mask):
        z = forward(encoder, network.encoder, x, mask)
        return z, z @ network.w + network.b[None, :]

    return run


def shots_of(support: Batch, ways: int) -> jax.Array:
    """[ways] source examples of each class."""
    return jnp.sum(
        one_hot(support.y, ways, support.mask, jnp.result_type(float)), axis=0
    )


def predicting(encoder: Model) -> PredictFn:
    """predict of what was adapted: -inf for a class that the source has not."""
    run = classify(encoder)

    def predict(adapted, inputs, mask=None):
        return mask_absent_classes(run(adapted.network, inputs, mask)[1], adapted.shots)

    return predict


def view(run: Callable, support: Batch, together: bool) -> PyTree:
    """What a network says of both domains: run, (x, mask) -> arrays [n, ...].

    together: whether one that normalises by its batch sees both domains as one, or each
        by its own statistics.
    """
    if together:
        return run(support.x, support.mask)
    source, target = sides(support, jnp.result_type(float))
    of_source, of_target = run(support.x, source), run(support.x, target)
    choose = lambda s, t: jnp.where(source[:, None] > 0, s, t)
    return jax.tree.map(choose, of_source, of_target)


def look(encoder: Model, together: bool) -> Callable[[Network, Batch], Seen]:
    """A network's view of a support set; together: as in `view`."""
    run, together = classify(encoder), together or not encoder.uses_mask

    def seen(network, support):
        source, target = sides(support, network.w.dtype)
        z, logits = view(partial(run, network), support, together)
        return Seen(z, logits, support.y, source, target, support.x)

    return seen


def initial(encoder: Model, features: int, ways: int) -> Callable[..., Network]:
    """key -> a network with a random head."""

    def init(key):
        key_encoder, key_head = jax.random.split(key)
        w = glorot(key_head, (features, ways))
        return Network(encoder.init(key_encoder), w, jnp.zeros(ways))

    return init
