"""Soft k-means prototypes: a prototypical network that uses unlabelled examples.

Ren, Triantafillou, Ravi, Snell, Swersky, Tenenbaum, Larochelle, Zemel. Meta-Learning for
Semi-Supervised Few-Shot Classification. ICLR 2018, arXiv 1803.00676. With the prototypes
p_c of the labelled support, labels z_ic, and unlabelled examples h(x_j):

    z_jc = softmax_c(-|h(x_j) - p_c|^2)                                   (eq. 3)
    p'_c = (sum_i h_i z_ic + sum_j h_j z_jc) / (sum_i z_ic + sum_j z_jc)

"cluster": one more cluster for distractors, at the origin, of learned length r; a cluster
    of length r has the logit -|h|^2 / r^2 - A(r), A(r) = log(2 pi) / 2 + log r (eqs. 5, 6)
"masked": example j counts for class c with m_jc = sigmoid(-gamma_c (d_jc - beta_c)), d_jc
    the distance over its mean, gamma and beta from a network of d's statistics (eqs. 7-10)

Departures:
- z_jc is differentiated; the authors' code takes it as a constant in the plain variant.
- "cluster": r starts at 1, and queries are of the classes; in the authors' code r
  starts at 100, squared distances are halved, and the distractors' cluster remains a
  choice for queries.
- "masked": gamma and beta are softplus of the network's outputs, and the statistics are
  differentiated; the authors' code has exp, takes the statistics as constants, and
  multiplies by m_jc twice.
- Support (with unlabelled examples) and query are embedded apart; the authors' code
  embeds them as one batch, so that batch norm in training sees both.

Meta-parameters: the encoder's, log r, the network's.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.core
import jax.numpy as jnp

from jaxmeta import checks, losses, models
from jaxmeta.batches import forward
from jaxmeta.learners.features import (
    class_means,
    embed_support,
    flat,
    mask_absent_classes,
    squared_distances,
    weights_of,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class SoftKMeansParams(NamedTuple):
    """Meta-parameters of soft k-means prototypes."""

    encoder: PyTree
    log_r: jax.Array  # [] length of the distractors' cluster; "cluster"
    network: Any  # statistics -> beta, gamma; "masked"


VARIANTS = ("plain", "cluster", "masked")


class Clusters(NamedTuple):
    """An adapted soft k-means."""

    phi: PyTree  # the encoder's parameters
    p: jax.Array  # [ways, features] refined prototypes
    shots: jax.Array  # [ways] labelled support examples of each class


def _statistics(d, weights):
    """[m, ways], [m] -> [ways, 5]: least, largest, variance, skewness, kurtosis of d."""
    share = weights / jnp.maximum(jnp.sum(weights), 1)
    keep = weights[:, None] > 0
    mean = share @ d
    apart = d - mean[None, :]
    variance = share @ jnp.square(apart)
    scale = jnp.sqrt(variance + 1e-6)
    least = jnp.min(jnp.where(keep, d, 1e6), axis=0)
    largest = jnp.max(jnp.where(keep, d, -1e6), axis=0)
    any_there = jnp.sum(weights) > 0
    least, largest = (jnp.where(any_there, a, 0) for a in (least, largest))
    moments = [share @ (apart / scale[None, :]) ** k for k in (3, 4)]
    return jnp.stack([least, largest, variance, *moments], axis=1)


@register(
    paper="Ren et al. 2018, arXiv 1803.00676",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    unlabelled="required",
)
def soft_kmeans(
    encoder: Model,
    *,
    ways: int = 5,
    variant: Literal["plain", "cluster", "masked"] = "plain",
    iterations: int = 1,
) -> MetaLearner:
    """Soft k-means: prototypes refined by the unlabelled part of the support set.

    Unlabelled examples are those of the support set with y = -1, `types.UNLABELLED`; see
    `tasks.episodes(..., unlabelled=5, distractors=2)`.

    Args:
        encoder: the encoder h, inputs -> [examples, features].
        ways: classes of a task; the parameters do not depend on it.
        variant: "plain", or made for distractors (unlabelled examples of other classes):
            "cluster" or "masked".
        iterations: of k-means (the paper: 1).

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways], -inf for a class
        without labelled examples.
    Raises: ValueError for fewer than 2 ways, another variant, iterations below 1, or a
        support set without labelled or without unlabelled examples.
    """
    encoder = flat(encoder)
    checks.check_sizes(2, ways=ways)
    checks.check_choice("variant", variant, VARIANTS)
    checks.check_sizes(iterations=iterations)
    network = models.mlp(5, 2, (20,), activation=jnp.tanh)

    def init(key):
        key_encoder, key_network = jax.random.split(key)
        extra = network.init(key_network) if variant == "masked" else {}
        return SoftKMeansParams(encoder.init(key_encoder), jnp.zeros(()), extra)

    def shares(params, h, weights, p, shots):
        """z_jc [m, ways] of the unlabelled examples, times what they count."""
        d = squared_distances(h, p)
        logits = jnp.where(shots[None, :] > 0, -d, -1e30)
        if variant == "cluster":
            # the classes have length 1, so A(r) matters as the difference log r
            away = jnp.sum(jnp.square(h), axis=1, keepdims=True)
            other = -away * jnp.exp(-2 * params.log_r) - params.log_r
            logits = jnp.concatenate([logits, other], axis=1)
        z = jax.nn.softmax(logits, axis=1)[:, :ways] * weights[:, None]
        if variant == "masked":
            mean = weights @ d / jnp.maximum(jnp.sum(weights), 1)
            d = d / jnp.where(mean > 0, mean, 1)[None, :]
            out = network.apply(params.network, _statistics(d, weights))
            beta, gamma = jax.nn.softplus(out[:, 0]), jax.nn.softplus(out[:, 1])
            z = z * jax.nn.sigmoid(-gamma[None, :] * (d - beta[None, :]))
        return z

    def adapt(params, support, key=None):
        del key  # deterministic
        h, onehot = embed_support(encoder, params.encoder, support, ways)
        labelled = jnp.sum(onehot, axis=1)
        weights = weights_of(support.mask, h) * (1 - labelled)
        p, shots = class_means(h, onehot)
        for _ in range(iterations):
            z = shares(params, h, weights, p, shots)
            p, _ = class_means(h, onehot + z)
        return Clusters(params.encoder, p, shots)

    def predict(adapted, inputs, mask=None):
        phi, p, shots = adapted
        z = forward(encoder, phi, inputs, mask)
        return mask_absent_classes(-squared_distances(z, p), shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss)
