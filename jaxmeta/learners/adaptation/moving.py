"""What learners share that move the source onto the target, then train a classifier.

Nothing is searched for: the move is computed in closed form from the features of both
domains, and a classifier of the moved source, whose labels it has, is one of the target.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint
from jaxmeta.batches import columns, forward, one_hot, precise
from jaxmeta.learners.adaptation.domains import shots_of, sides
from jaxmeta.learners.adaptation.standardising import (
    Moments,
    check_standard,
    presence,
    scaled,
    standardised,
)
from jaxmeta.learners.features import flat, mask_absent_classes
from jaxmeta.learners.objectives import query_loss
from jaxmeta.types import MetaLearner, Model, PyTree

# (z [n, features], onehot [n, ways], source [n], target [n]) -> z, the source's moved
Move = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
# Half of an update is in the next one: a step goes twice as far, along much the same path,
# and is stable up to larger features.
MOMENTUM = partial(optax.sgd, momentum=0.5)


class Linear(NamedTuple):
    """Softmax regression."""

    w: jax.Array  # [features, ways]
    b: jax.Array  # [ways]


class Moved(NamedTuple):
    """What `predict` needs."""

    encoder: PyTree  # () without one
    target: Moments | None  # what the target's features are standardised by
    head: PyTree  # `Linear`, or a network's parameters
    shots: jax.Array  # [ways] source examples of each class


class Training(NamedTuple):
    """How the classifier is trained; arguments of every constructor."""

    inner_lr: Any
    inner_steps: int
    adjoint: Adjoint
    rule: inner.Rule


def _embedding(encoder: Model | None) -> Callable:
    """(parameters, x, mask) -> z [n, features]; the inputs as they are, without one."""
    if encoder is None:
        return lambda params, x, mask: precise(columns(x))
    sized = flat(encoder)
    return lambda params, x, mask: precise(forward(sized, params, x, mask))


def _head(head: Model | None, ways: int) -> tuple[Callable, Callable]:
    """(parameters, z) -> their start; (parameters, z, mask) -> logits [n, ways]."""
    if head is not None:
        checks.check_models(head=head)
        return lambda params, z: params["head"], lambda *given: forward(head, *given)

    def begin(params, z):
        return Linear(jnp.zeros((z.shape[1], ways), z.dtype), jnp.zeros(ways, z.dtype))

    return begin, lambda theta, z, mask: z @ theta.w + theta.b[None, :]


def _cross_entropy(logits: Callable) -> inner.Objective:
    """Mean cross-entropy of the moved source."""

    def objective(theta, context, batch):
        del batch
        z, onehot = context
        counts = jnp.sum(onehot, axis=1)
        log_p = jax.nn.log_softmax(logits(theta, z, counts), axis=1)
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


def moving(
    name: str,
    encoder: Model | None,
    head: Model | None,
    move: Move,
    training: Training,
    *,
    ways: int,
    standardise: str,
    epsilon: float,
) -> MetaLearner:
    """A learner that trains a classifier on what `move` makes of the source's features.

    Args:
        encoder: None = the inputs are the features.
        head: [n, features] -> [n, ways]; None = softmax regression, from zero.
        standardise, epsilon: of the features, before they are moved, see `standardised`.
    Returns: a `MetaLearner` of classification, whose meta-parameters are those of the
        networks there are; `adapted` is a `Moved`.
    Raises: ValueError for sizes or names out of range.
    """
    checks.check_sizes(2, ways=ways)
    check_standard(standardise, epsilon)
    embed, (begin, logits) = _embedding(encoder), _head(head, ways)
    networks = {"encoder": encoder, "head": head}
    networks = {n: network for n, network in networks.items() if network is not None}
    learned = {"encoder": "context", "head": "start"}
    descend = inner.descent(
        name,
        _softmax_regression if head is None else _cross_entropy(logits),
        rule=training.rule,
        steps=training.inner_steps,
        adjoint=training.adjoint,
        inner_lr=training.inner_lr,
        learns=tuple(learned[n] for n in networks),
    )

    def init(key):
        keys = jax.random.split(key, 2)
        pairs = zip(networks.items(), keys, strict=False)
        return {n: network.init(k) for (n, network), k in pairs}

    def adapt(params, support, key=None):
        del key  # deterministic
        of_encoder = params.get("encoder", ())
        z = embed(of_encoder, support.x, support.mask)
        source, target = sides(support, z.dtype)
        z = z * presence(source, target)
        z, by = standardised(z, source, target, standardise, epsilon)
        onehot = one_hot(support.y, ways, support.mask, z.dtype)
        moved = jnp.where(source[:, None] > 0, move(z, onehot, source, target), 0)
        context = (moved, onehot) if head is not None else (moved.T, onehot.T)
        theta = descend(begin(params, z), context, ())
        return Moved(of_encoder, by, theta, shots_of(support, ways))

    def predict(adapted, inputs, mask=None):
        z = embed(adapted.encoder, inputs, mask)
        z = z if adapted.target is None else scaled(z, adapted.target)
        return mask_absent_classes(logits(adapted.head, z, mask), adapted.shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss)
