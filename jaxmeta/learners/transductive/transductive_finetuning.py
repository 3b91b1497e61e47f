"""Transductive fine-tuning: the support's labels and confident queries.

Dhillon, Chaudhari, Ravichandran, Soatto. A Baseline for Few-Shot Image Classification.
ICLR 2020, arXiv 1909.02729. The encoder is trained with a classifier of all classes. For
a task, a head w_k = z_k / |z_k| (support-based initialisation, eq. 5), then gradient
steps on all of

    mean over support of -log p(y | x) + mean over queries of H(p(. | x))  (eq. 8)

Departures:
- The head is on the encoder's features; the paper's is on relu(logits) of the
  classifier of the training classes.
- Cosines are divided by 0.1 by default; the authors' code has no temperature.
- A step descends the sum of both terms; the authors' code takes two, one for each term,
  in each of its 25 epochs, on augmented images.
- The encoder is trained with plain cross-entropy; the paper's with mixup and label
  smoothing.

Meta-parameters: the encoder's, and the classifier's of the training classes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.batches import blank_padding, forward, one_hot
from jaxmeta.learners.features import (
    class_means,
    mask_absent_classes,
    sized,
    unit,
    weights_of,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.pretraining import classes_loss, init_pretrained
from jaxmeta.learners.registry import register
from jaxmeta.types import Batch, MetaLearner, Model, PyTree


class Unsolved(NamedTuple):
    """What is kept of a task until the queries come: the support set itself."""

    encoder: PyTree
    support: Batch


@register(
    paper="Dhillon et al. 2020, arXiv 1909.02729",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    trains_on="classes",
    transductive=True,
    tiny={"inner_lr": 0.001},
)
def transductive_finetuning(
    encoder: Model,
    *,
    classes: int,
    ways: int = 5,
    features: int = 64,
    temperature: float = 0.1,
    inner_lr: float | optax.Schedule = 5e-5,
    inner_steps: int = 25,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = partial(
        optax.adam, eps_root=1e-8
    ),
) -> MetaLearner:
    """Transductive fine-tuning: the whole network, on labels and confident queries.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        classes: of the training set, see `jaxmeta.tasks.classes`.
        ways: classes of a task.
        features: size of what the encoder makes of an example.
        temperature: the cosines of the head are divided by it.
        inner_lr: step size.
        inner_steps: full-batch steps, when asked to predict.
        adjoint: how to differentiate `loss` through them; training does not.
        rule: makes the update rule from `inner_lr`.

    Returns: a `MetaLearner` to be trained on `tasks.classes`; `predict` gives logits
        [examples, ways] that depend on all inputs it is asked with.
    Raises: ValueError for fewer than 2 ways or classes, a temperature that is not
        positive, or as `maml`.
    """
    checks.check_sizes(2, ways=ways)
    checks.check_positive(temperature=temperature)
    encoder = sized(encoder, features)
    init = init_pretrained(encoder, features, classes)

    def logits(theta, x, mask):
        phi, w, b = theta
        z = unit(forward(encoder, phi, x, mask))
        return z @ w.T / temperature + b[None, :]

    def objective(theta, shots, batch):
        support, (x, mask) = batch
        of_support = mask_absent_classes(logits(theta, support.x, support.mask), shots)
        fit = losses.mean_loss(losses.cross_entropy, of_support, support)
        log_p = jax.nn.log_softmax(
            jnp.where(shots[None, :] > 0, logits(theta, x, mask), -1e30), axis=1
        )
        entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=1)
        return fit + losses.mean(entropy, mask)

    def adapt(params, support, key=None):
        del key  # deterministic
        return Unsolved(params.encoder, support)

    descend = inner.descent(
        "transductive_finetuning",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
        learns=("start", "context"),
    )

    def predict(adapted, inputs, mask=None):
        phi, support = adapted
        n = len(jax.tree.leaves(inputs)[0])
        inputs = blank_padding(Batch(inputs, jnp.zeros(n), mask)).x
        z = forward(encoder, phi, support.x, support.mask)
        onehot = one_hot(support.y, ways, support.mask, z.dtype)
        c, shots = class_means(z, onehot)
        theta = descend(
            (phi, unit(c), jnp.zeros(ways, c.dtype)),
            shots,
            (support, (inputs, weights_of(mask, jnp.zeros(n, z.dtype)))),
        )
        return mask_absent_classes(logits(theta, inputs, mask), shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss, classes_loss(encoder, classes))
