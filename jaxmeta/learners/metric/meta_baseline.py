"""Meta-Baseline: cosine prototypes with a learned temperature, on a trained classifier.

Chen, Liu, Xu, Darrell, Wang. Meta-Baseline: Exploring Simple Meta-Learning for Few-Shot
Learning. ICCV 2021, arXiv 2003.04390. After training a classifier of all classes
(`baseline`) and dropping its head:

    p(y = c | x) = softmax_c(tau cos(f(x), w_c)),  w_c the class mean     (eq. 2)

Departures: support and query are embedded apart; the authors' code embeds them as one
batch, so that batch norm in training sees both.

Meta-parameters: the encoder's, and tau.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import forward
from jaxmeta.learners.features import (
    class_means,
    cosines,
    embed_support,
    flat,
    mask_absent_classes,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class MetaBaselineParams(NamedTuple):
    """Meta-parameters of Meta-Baseline."""

    encoder: PyTree
    tau: jax.Array  # []


class Means(NamedTuple):
    """An adapted Meta-Baseline."""

    params: MetaBaselineParams
    w: jax.Array  # [ways, features]
    shots: jax.Array  # [ways]


@register(
    paper="Chen et al. 2021, arXiv 2003.04390",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
)
def meta_baseline(
    encoder: Model, *, ways: int = 5, temperature: float = 10.0
) -> MetaLearner:
    """Meta-Baseline: cosine to class means, times a learned temperature.

    The paper's first stage is `baseline` on all classes; put its encoder in with
    `params._replace(encoder=pretrained.encoder)`.

    Args:
        encoder: the encoder, inputs -> [examples, features].
        ways: classes of a task; the parameters do not depend on it.
        temperature: where tau starts.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways], -inf for a class
        without support examples.
    Raises: ValueError for fewer than 2 ways or a temperature that is not positive.
    """
    encoder = flat(encoder)
    checks.check_sizes(2, ways=ways)
    checks.check_positive(temperature=temperature)

    def init(key):
        return MetaBaselineParams(
            encoder.init(key), jnp.asarray(temperature, jnp.float32)
        )

    def adapt(params, support, key=None):
        del key  # deterministic
        z, onehot = embed_support(encoder, params.encoder, support, ways)
        return Means(params, *class_means(z, onehot))

    def predict(adapted, inputs, mask=None):
        params, w, shots = adapted
        z = forward(encoder, params.encoder, inputs, mask)
        return mask_absent_classes(params.tau * cosines(z, w), shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss)
