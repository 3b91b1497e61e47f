"""Classifiers of the moved source: softmax regression, a neighbour, a network."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, inner
from jaxmeta.adjoints import Adjoint
from jaxmeta.batches import forward
from jaxmeta.learners.features import squared_distances
from jaxmeta.types import Model, PyTree

Head = Model | Literal["softmax", "nearest"]


class Linear(NamedTuple):
    """Softmax regression."""

    w: jax.Array  # [features, ways]
    b: jax.Array  # [ways]


class Kept(NamedTuple):
    """The source, of which the nearest example is looked for."""

    z: jax.Array  # [n, features]
    onehot: jax.Array  # [n, ways] rows of 0 for what is not the source's


class Training(NamedTuple):
    """How the classifier is trained; arguments of every constructor."""

    inner_lr: Any
    inner_steps: int
    adjoint: Adjoint
    rule: inner.Rule


class Classifier(NamedTuple):
    """How one is found, and what it says."""

    fit: Callable[
        ..., PyTree
    ]  # (parameters, z [n, features], onehot [n, ways]) -> theta
    logits: Callable[..., jax.Array]  # (theta, z, mask) -> [n, ways]


def classifier(
    name: str, head: Head, training: Training, ways: int, learns: tuple[str, ...]
) -> Classifier:
    """A classifier.

    Args:
        name: of the learner, for sentences. head: a network, whose start is in
            parameters["head"], "softmax", from zero, or "nearest", without training.
        learns: what is meta-learned, as in `inner.descent`.
    Raises: ValueError for another head, or as `maml`.
    """
    if isinstance(head, str):
        checks.check_choice("head", head, ("softmax", "nearest"))
    else:
        checks.check_models(head=head)
    descend = inner.descent(
        name,
        _softmax_regression if isinstance(head, str) else _cross_entropy(head),
        rule=training.rule,
        steps=training.inner_steps,
        adjoint=training.adjoint,
        inner_lr=training.inner_lr,
        learns=learns,
    )
    if head == "nearest":
        return Classifier(lambda params, z, onehot: Kept(z, onehot), _nearest)
    if head == "softmax":
        return _regression(descend, ways)

    def fit(params, z, onehot):
        return descend(params["head"], (z, onehot), ())

    return Classifier(fit, lambda *given: forward(head, *given))


def _regression(descend: inner.Descent, ways: int) -> Classifier:
    def fit(params, z, onehot):
        start = Linear(jnp.zeros((z.shape[1], ways), z.dtype), jnp.zeros(ways, z.dtype))
        return descend(start, (z.T, onehot.T), ())

    return Classifier(fit, lambda theta, z, mask: z @ theta.w + theta.b[None, :])


def _nearest(kept: Kept, z: jax.Array, mask=None) -> jax.Array:
    """Minus the squared distance to the nearest of each class, [n, ways]."""
    del mask  # examples are judged one by one
    distances = squared_distances(z, kept.z)[:, None, :]  # [n, 1, examples]
    return -jnp.min(jnp.where(kept.onehot.T[None] > 0, distances, jnp.inf), axis=2)


def _cross_entropy(head: Model) -> inner.Objective:
    """Mean cross-entropy of the moved source."""

    def objective(theta, context, batch):
        del batch
        z, onehot = context
        logits = forward(head, theta, z, jnp.sum(onehot, axis=1))
        log_p = jax.nn.log_softmax(logits, axis=1)
        return -jnp.sum(onehot * log_p) / jnp.maximum(jnp.sum(onehot), 1)

    return objective


def _softmax_regression(theta: Linear, context: PyTree, batch: PyTree) -> jax.Array:
    """The same of a linear classifier: z [features, n], onehot [ways, n].

    In this order a step's work is along examples, which are next to each other in memory:
    a CPU takes a quarter of the time for it.
    """
    del batch
    z, onehot = context
    log_p = jax.nn.log_softmax(theta.w.T @ z + theta.b[:, None], axis=0)
    return -jnp.sum(onehot * log_p) / jnp.maximum(jnp.sum(onehot), 1)
