"""SimpleShot: nearest class mean of transformed features.

Wang, Chao, Weinberger, van der Maaten. SimpleShot: Revisiting Nearest-Neighbor
Classification for Few-Shot Learning. arXiv 1911.04623, section 3. The encoder is trained
with a classifier of all training classes; with its features z:

    UN    z as it is
    L2N   z / |z|
    CL2N  (z - m) / |z - m|,  m the mean feature of the training set
    y(x) = argmin_c |z - mean of class c|                                 (eq. 2)

m is no matter of descent: `settle` computes it in one pass over the training set, which
`fit` does before it validates and at its end.

Meta-parameters: the encoder's, the classifier's of the training classes, m.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import forward, precise
from jaxmeta.boundary import entered
from jaxmeta.learners.features import (
    class_means,
    embed_support,
    mask_absent_classes,
    sized,
    squared_distances,
    unit,
    weights_of,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.pretraining import classes_loss, init_pretrained
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class SimpleShotParams(NamedTuple):
    """Meta-parameters of SimpleShot."""

    encoder: PyTree
    w: jax.Array  # [features, classes]
    b: jax.Array  # [classes]
    m: jax.Array  # [features]


class Centroids(NamedTuple):
    """An adapted SimpleShot."""

    params: SimpleShotParams
    c: jax.Array  # [ways, features]
    shots: jax.Array  # [ways]


@jax.jit
def _draw(sampler, key):
    return sampler.sample(key)


TRANSFORMS = ("UN", "L2N", "CL2N")


@register(
    paper="Wang et al. 2019, arXiv 1911.04623",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    trains_on="classes",
)
def simpleshot(
    encoder: Model,
    *,
    classes: int,
    ways: int = 5,
    features: int = 64,
    transform: Literal["UN", "L2N", "CL2N"] = "CL2N",
) -> MetaLearner:
    """SimpleShot: train a classifier of all classes, then compare with class means.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        classes: of the training set, see `jaxmeta.tasks.classes`.
        ways: classes of a task.
        features: size of what the encoder makes of an example.
        transform: of the features, "UN", "L2N" or "CL2N".

    Returns: a `MetaLearner` to be trained on `tasks.classes`; `predict` gives minus the
        squared distances [examples, ways], -inf for a class without support examples.
    Raises: ValueError for fewer than 2 ways or classes, or another transform.
    """
    checks.check_sizes(2, ways=ways)
    checks.check_choice("transform", transform, TRANSFORMS)
    encoder = sized(encoder, features)
    init_classifier = init_pretrained(encoder, features, classes)

    def init(key):
        encoder, w, b = init_classifier(key)
        return SimpleShotParams(encoder, w, b, jnp.zeros(features))

    def transformed(params, z):
        if transform == "UN":
            return z
        return unit(z - params.m[None, :]) if transform == "CL2N" else unit(z)

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(encoder, params.encoder, support, ways)
        return Centroids(params, *class_means(transformed(params, z), onehot))

    def predict(adapted, inputs, mask=None):
        params, c, shots = adapted
        z = transformed(params, forward(encoder, params.encoder, inputs, mask))
        return mask_absent_classes(-squared_distances(z, c), shots)

    @jax.jit
    def total(phi, batch):
        z = forward(encoder, phi, entered(batch.x), batch.mask)
        counts = weights_of(batch.mask, z)
        return precise(counts) @ precise(z), jnp.sum(precise(counts))

    def settle(params, sampler):
        """m, the mean feature of all training examples (else of a hundred minibatches)."""
        keys = jax.random.split(jax.random.key(0), 100)
        drawn = (_draw(sampler, key).query for key in keys)
        batches = sampler.everything() if hasattr(sampler, "everything") else drawn
        sums = [total(params.encoder, batch) for batch in batches]
        m, n = jax.tree.map(lambda *parts: sum(parts), *sums)
        return params._replace(m=(m / n).astype(params.m.dtype))

    loss = query_loss(adapt, predict, losses.cross_entropy)
    train = classes_loss(encoder, classes)
    return MetaLearner(init, adapt, predict, loss, train, settle)
