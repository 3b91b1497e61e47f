"""Learners whose encoder is trained as a classifier of all classes, not in episodes.

They train on minibatches of `jaxmeta.tasks.classes`, whose labels are class numbers, and
adapt to episodes like any other learner: `objective` is the classifier's, `loss`
that of an episode.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import blank_padding, forward
from jaxmeta.models.parameters import glorot
from jaxmeta.types import Model, ObjectiveFn, PyTree

Logits = Callable[["Pretrained", jax.Array], jax.Array]


class Pretrained(NamedTuple):
    """An encoder and the classifier it is trained with."""

    encoder: PyTree
    w: jax.Array  # [features, classes]
    b: jax.Array  # [classes]


def linear(params: Pretrained, z: jax.Array) -> jax.Array:
    """[n, features] -> [n, classes]."""
    return z @ params.w + params.b[None, :]


def init_pretrained(encoder: Model, features: int, classes: int) -> Callable:
    """key -> `Pretrained`. Raises: ValueError for classes below 2."""
    checks.check_sizes(2, classes=classes)

    def init(key):
        key_encoder, key_w = jax.random.split(key)
        w = glorot(key_w, (features, classes))
        return Pretrained(encoder.init(key_encoder), w, jnp.zeros(classes))

    return init


def classes_loss(encoder: Model, classes: int, logits: Logits = linear) -> ObjectiveFn:
    """Cross-entropy of all classes on a minibatch, the query of a task.

    Args:
        encoder, classes: the encoder, and how many classes the training set has.
        logits: (params, z) -> [n, classes].
    """

    def loss(params, task, key, step):
        del key, step
        checks.check_batch(task.query, "query")
        checks.check_labels(task.query, classes, "training")
        batch = blank_padding(task.query)
        z = forward(encoder, params.encoder, batch.x, batch.mask)
        outputs = logits(params, z)
        value = losses.mean_loss(losses.cross_entropy, outputs, batch)
        return value, {"loss": value, **losses.score(outputs, batch)}

    return loss
