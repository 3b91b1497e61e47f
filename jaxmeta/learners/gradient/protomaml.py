"""ProtoMAML: MAML whose head starts from the prototypes of the task.

Triantafillou et al. Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few
Examples. ICLR 2020, arXiv 1903.03096. Section 3, with c_k the mean embedding of class k:

    W_k = 2 c_k,   b_k = -|c_k|^2,   then MAML's steps on encoder, W and b

since -|f(x) - c_k|^2 = 2 c_k . f(x) - |c_k|^2 + (the same for all k). The gradient flows
through that start, too.

Departures:
- Gradients are exact by default; the paper and the authors' code take inner gradients
  as constants.
- All of the encoder is adapted; the authors' code leaves scales and offsets of batch
  norm out, and predicts with the support set's statistics.

Meta-parameters: theta, exactly the parameters of the encoder.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.batches import forward
from jaxmeta.learners.features import class_means, embed_support, flat
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class Classifier(NamedTuple):
    """An encoder with a linear head."""

    theta: PyTree
    w: jax.Array  # [features, ways]
    b: jax.Array  # [ways]


class Adapted(NamedTuple):
    """An adapted ProtoMAML."""

    classifier: Classifier
    present: jax.Array  # [ways] whether a class has support examples


@register(
    paper="Triantafillou et al. 2020, arXiv 1903.03096",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
)
def protomaml(
    encoder: Model,
    *,
    ways: int = 5,
    inner_lr: float | optax.Schedule = 0.01,
    inner_steps: int = 5,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """ProtoMAML: a prototypical network, then gradient steps on all of it.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        ways: classes of a task; the parameters do not depend on it.
        inner_lr: alpha, step size of adaptation; a number, or a schedule of the step.
        inner_steps: gradient steps of adaptation; 0 is a prototypical network.
        adjoint: how to differentiate through the inner loop.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways], -inf for a class
        without support examples.
    Raises: ValueError for fewer than 2 ways, or as `maml`.
    """
    encoder = flat(encoder)
    checks.check_sizes(2, ways=ways)

    def logits(adapted, x, mask):
        (theta, w, b), present = adapted
        scores = forward(encoder, theta, x, mask) @ w + b[None, :]
        return jnp.where(present[None, :], scores, -jnp.inf)

    def objective(classifier, present, batch):
        outputs = logits(Adapted(classifier, present), batch.x, batch.mask)
        return losses.mean_loss(losses.cross_entropy, outputs, batch)

    descend = inner.descent(
        "protomaml",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
    )

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(encoder, params, support, ways)
        c, shots = class_means(z, onehot)
        start = Classifier(params, 2 * c.T, -jnp.sum(jnp.square(c), axis=1))
        present = shots > 0
        end = descend(start, present, support)
        return Adapted(end, present)

    def predict(adapted, inputs, mask=None):
        return logits(adapted, inputs, mask)

    outer = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(encoder.init, adapt, predict, outer)
