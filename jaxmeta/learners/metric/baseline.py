"""Baseline and Baseline++: a classifier of all classes, then a new head.

Chen, Liu, Kira, Wang, Huang. A Closer Look at Few-shot Classification. ICLR 2019,
arXiv 1904.04232, section 3.2. The encoder is trained with the classifier of all training
classes and then fixed; a task trains a new head on its support set,

    Baseline    p = softmax(W'z + b)
    Baseline++  p_k = softmax_k(s cos(z, w_k))

in both stages.

Departures:
- A head takes full-batch steps of gradient descent; the authors' code takes minibatches
  of 4, with momentum, dampening and weight decay.
- It starts from zero (Baseline) or from the class means (Baseline++); the authors'
  starts at random.
- Baseline++ has cosines, and one s in both stages; in the authors' code a learned
  length of each class multiplies them, and s is 2 up to 200 classes.

Meta-parameters: the encoder's, and the classifier of the training classes, which is not
used after training (Baseline++ leaves its b alone).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.batches import forward
from jaxmeta.learners.features import (
    class_means,
    cosines,
    embed_support,
    mask_absent_classes,
    sized,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.pretraining import (
    classes_loss,
    init_pretrained,
    linear,
)
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class Head(NamedTuple):
    """An adapted Baseline."""

    encoder: PyTree
    head: Any
    shots: jax.Array  # [ways]


def _fine_tuned(
    name, encoder, ways, features, classes, start, logits, class_logits, descent
) -> MetaLearner:
    """start: (z, onehot) -> head; logits: (head, z) -> [n, ways]."""
    inner_lr, inner_steps, adjoint, rule = descent
    checks.check_sizes(2, ways=ways)
    encoder = sized(encoder, features)
    init = init_pretrained(encoder, features, classes)

    def objective(head, context, batch):
        z, onehot = context
        there = jnp.sum(onehot, axis=0) > 0
        scores = jnp.where(there[None, :], logits(head, z), -1e30)
        log_p = jax.nn.log_softmax(scores, axis=1)
        return -jnp.sum(onehot * log_p) / jnp.maximum(jnp.sum(onehot), 1)

    descend = inner.descent(
        name,
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
        learns=("start", "context"),
    )

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(encoder, params.encoder, support, ways)
        head = descend(start(z, onehot), (z, onehot), ())
        return Head(params.encoder, head, jnp.sum(onehot, axis=0))

    def predict(adapted, inputs, mask=None):
        z = forward(encoder, adapted.encoder, inputs, mask)
        return mask_absent_classes(logits(adapted.head, z), adapted.shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    train = classes_loss(encoder, classes, class_logits)
    return MetaLearner(init, adapt, predict, loss, train)


@register(
    paper="Chen et al. 2019, arXiv 1904.04232",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    trains_on="classes",
)
def baseline(
    encoder: Model,
    *,
    classes: int,
    ways: int = 5,
    features: int = 64,
    inner_lr: float | optax.Schedule = 0.05,
    inner_steps: int = 100,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """Baseline: train a classifier of all classes, then a linear head for each task.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        classes: of the training set, see `jaxmeta.tasks.classes`.
        ways: classes of a task.
        features: size of what the encoder makes of an example.
        inner_lr: step size of the head; a number, or a schedule of the step.
        inner_steps: steps of the head on the whole support set (the paper: 100 epochs of
            minibatches of 4, with 0.01).
        adjoint: how to differentiate `loss` through them; training does not.
        rule: makes the update rule of the head from `inner_lr`.

    Returns: a `MetaLearner` to be trained on `tasks.classes`; `predict` gives logits
        [examples, ways], -inf for a class without support examples.
    Raises: ValueError for fewer than 2 ways or classes, or as `maml`.
    """

    def start(z, onehot):
        del onehot
        return {
            "w": jnp.zeros((features, ways), z.dtype),
            "b": jnp.zeros(ways, z.dtype),
        }

    def logits(head, z):
        return z @ head["w"] + head["b"][None, :]

    descent = (inner_lr, inner_steps, adjoint, rule)
    return _fine_tuned(
        "baseline", encoder, ways, features, classes, start, logits, linear, descent
    )


@register(
    paper="Chen et al. 2019, arXiv 1904.04232",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    trains_on="classes",
)
def baseline_plus_plus(
    encoder: Model,
    *,
    classes: int,
    ways: int = 5,
    features: int = 64,
    scale: float = 10.0,
    inner_lr: float | optax.Schedule = 0.05,
    inner_steps: int = 100,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """Baseline++: the same with cosine similarities in place of inner products.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        classes: of the training set, see `jaxmeta.tasks.classes`.
        ways: classes of a task.
        features: size of what the encoder makes of an example.
        scale: s, of the cosines (the authors' code: 2 for up to 200 classes, else 10).
        inner_lr: step size of the head; a number, or a schedule of the step.
        inner_steps: steps of the head on the whole support set.
        adjoint: how to differentiate `loss` through them; training does not.
        rule: makes the update rule of the head from `inner_lr`.

    Returns, raises: as `baseline`; also ValueError for a scale that is not positive.
    """
    checks.check_positive(scale=scale)

    def start(z, onehot):
        return class_means(z, onehot)[0]

    def logits(head, z):
        return scale * cosines(z, head)

    def class_logits(params, z):
        return scale * cosines(z, params.w.T)

    descent = (inner_lr, inner_steps, adjoint, rule)
    return _fine_tuned(
        *("baseline_plus_plus", encoder, ways, features, classes),
        *(start, logits, class_logits, descent),
    )
