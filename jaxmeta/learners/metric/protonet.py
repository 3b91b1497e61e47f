"""Prototypical networks.

Snell, Swersky, Zemel. Prototypical Networks for Few-shot Learning. NeurIPS 2017,
arXiv 1703.05175:

    c_k = mean of f_phi(x_i) over the support examples of class k          (eq. 1)
    p_phi(y = k | x) = softmax_k(-d(f_phi(x), c_k))                        (eq. 2)

with d the squared Euclidean distance, or 1 - cosine (section 2.7).

Departures:
- Support and query are embedded apart; the authors' code embeds them as one batch, so
  that batch norm in training sees both.
- Cosine distances are multiplied by 10 by default; the paper has no factor.

Meta-parameters: phi, exactly the parameters of the encoder.
"""

from typing import Literal, NamedTuple

import jax

from jaxmeta import checks, losses
from jaxmeta.batches import forward
from jaxmeta.learners.features import (
    class_means,
    cosines,
    embed_support,
    flat,
    mask_absent_classes,
    squared_distances,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class Prototypes(NamedTuple):
    """An adapted prototypical network."""

    phi: PyTree  # the encoder's parameters
    c: jax.Array  # [ways, features]
    shots: jax.Array  # [ways] support examples of each class


DISTANCES = ("euclidean", "cosine")


@register(
    paper="Snell et al. 2017, arXiv 1703.05175",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
)
def protonet(
    encoder: Model,
    *,
    ways: int = 5,
    distance: Literal["euclidean", "cosine"] = "euclidean",
    scale: float = 10.0,
) -> MetaLearner:
    """Prototypical network: classify by the nearest class mean of embeddings.

    Args:
        encoder: the encoder f_phi, inputs -> [examples, features].
        ways: classes of a task. The parameters do not depend on it: train with 20 or
            60 ways, then build the learner again with the ways of the test tasks.
        distance: "euclidean" (squared) or "cosine".
        scale: of cosine distances, which lie within 0..2; not used otherwise.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways], -inf for a class
        without support examples.
    Raises: ValueError for fewer than 2 ways, another distance or a scale <= 0.
    """
    encoder = flat(encoder)
    checks.check_sizes(2, ways=ways)
    checks.check_choice("distance", distance, DISTANCES)
    checks.check_positive(scale=scale)

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(encoder, params, support, ways)
        return Prototypes(params, *class_means(z, onehot))

    def predict(adapted, inputs, mask=None):
        phi, c, shots = adapted
        z = forward(encoder, phi, inputs, mask)
        if distance == "cosine":
            return mask_absent_classes(scale * cosines(z, c), shots)
        return mask_absent_classes(-squared_distances(z, c), shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(encoder.init, adapt, predict, loss)
