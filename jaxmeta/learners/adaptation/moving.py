"""What learners share that move the source onto the target, then train a classifier.

Nothing is searched for: the move is computed in closed form from the features of both
domains, and a classifier of the moved source, whose labels it has, is one of the target.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, losses
from jaxmeta.batches import columns, forward, one_hot, precise
from jaxmeta.learners.adaptation.domains import shots_of, sides, view
from jaxmeta.learners.adaptation.heads import Head, Training, classifier
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


class Moved(NamedTuple):
    """What `predict` needs."""

    encoder: PyTree  # () without one
    target: Moments | None  # what the target's features are standardised by
    head: PyTree  # `Linear`, `Kept`, or a network's parameters
    shots: jax.Array  # [ways] source examples of each class


def _embedding(encoder: Model | None) -> Callable:
    """(parameters, x, mask) -> z [n, features]; the inputs as they are, without one."""
    if encoder is None:
        return lambda params, x, mask: precise(columns(x))
    sized = flat(encoder)
    return lambda params, x, mask: precise(forward(sized, params, x, mask))


def moving(
    name: str,
    encoder: Model | None,
    head: Head,
    move: Move,
    training: Training,
    *,
    ways: int,
    standardise: str,
    epsilon: float,
    together: bool,
) -> MetaLearner:
    """A learner that trains a classifier on what `move` makes of the source's features.

    Args:
        encoder: None = the inputs are the features.
        head: see `classifier`.
        standardise, epsilon: of the features, before they are moved, see `standardised`.
        together: of an encoder that normalises by its batch, see `view`.
    Returns: a `MetaLearner` of classification, whose meta-parameters are those of the
        networks there are; `adapted` is a `Moved`.
    Raises: ValueError for sizes or names out of range.
    """
    checks.check_sizes(2, ways=ways)
    check_standard(standardise, epsilon)
    checks.check_flags(together=together)
    embed = _embedding(encoder)
    together = together or encoder is None or not encoder.uses_mask
    networks = {"encoder": encoder, "head": None if isinstance(head, str) else head}
    networks = {n: network for n, network in networks.items() if network is not None}
    learned = {"encoder": "context", "head": "start"}
    learns = tuple(learned[n] for n in networks)
    fit, logits = classifier(name, head, training, ways, learns)

    def init(key):
        keys = jax.random.split(key, 2)
        pairs = zip(networks.items(), keys, strict=False)
        return {n: network.init(k) for (n, network), k in pairs}

    def adapt(params, support, key=None):
        del key  # deterministic
        of_encoder = params.get("encoder", ())
        z = view(partial(embed, of_encoder), support, together)
        source, target = sides(support, z.dtype)
        z = z * presence(source, target)
        z, by = standardised(z, source, target, standardise, epsilon)
        onehot = one_hot(support.y, ways, support.mask, z.dtype)
        moved = jnp.where(source[:, None] > 0, move(z, onehot, source, target), 0)
        theta = fit(params, moved, onehot)
        return Moved(of_encoder, by, theta, shots_of(support, ways))

    def predict(adapted, inputs, mask=None):
        z = embed(adapted.encoder, inputs, mask)
        z = z if adapted.target is None else scaled(z, adapted.target)
        return mask_absent_classes(logits(adapted.head, z, mask), adapted.shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss)
