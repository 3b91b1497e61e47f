"""VERSA: a network that reads the examples of a class and writes its classifier.

Gordon, Bronskill, Bauer, Nowozin, Turner. Meta-Learning Probabilistic Inference for
Prediction. ICLR 2019, arXiv 1805.09921. With the mean feature of class c, h_c,

    q_phi(psi_c | D) = N(mu_phi(h_c), diag sigma_phi(h_c)^2),  psi_c = weights and bias
    p(y | x, D) = 1/L sum_l softmax(psi^(l) . [f_theta(x), 1])            (eq. 4)
    loss = -log p(y | x, D), averaged over queries                       (eq. 5)

Departures:
- One inference network gives means and deviations of weights and bias, deviations of
  e^-4 at first; the authors' code has a network for each of the four.
- Classifiers are sampled, the same for all queries; the authors' code samples the
  logits of each query (local reparameterization).
- There is no dropout; the authors' code has 0.1 in the encoder.

Meta-parameters: those of the encoder f, theta, and of the inference network, phi.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses, models
from jaxmeta.batches import forward
from jaxmeta.learners.features import (
    class_means,
    embed_support,
    mask_absent_classes,
    sized,
)
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class VersaParams(NamedTuple):
    """Meta-parameters of VERSA."""

    encoder: PyTree  # theta
    inference: Any  # phi


class Weights(NamedTuple):
    """An adapted VERSA: samples of a linear classifier."""

    encoder: PyTree
    psi: jax.Array  # [samples, ways, features + 1]
    shots: jax.Array  # [ways]


@register(
    paper="Gordon et al. 2019, arXiv 1805.09921",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
)
def versa(
    encoder: Model, *, ways: int = 5, features: int = 64, samples: int = 10
) -> MetaLearner:
    """VERSA: amortized inference of a distribution over classifiers.

    Args:
        encoder: the encoder f, inputs -> [examples, features].
        ways: classes of a task; the parameters do not depend on it.
        features: size of what the encoder makes of an example.
        samples: L, classifiers drawn with a key; without one their mean is used.

    Returns: a `MetaLearner`; `predict` gives log-probabilities [examples, ways], -inf for
        a class without support examples.
    Raises: ValueError for fewer than 2 ways, features or samples below 1.
    """
    checks.check_sizes(2, ways=ways)
    encoder = sized(encoder, features)
    checks.check_sizes(samples=samples)
    size = features + 1
    network = models.mlp(
        features, 2 * size, (features, features), activation=jax.nn.elu
    )

    def init(key):
        key_encoder, key_inference = jax.random.split(key)
        inference = network.init(key_inference)
        # standard deviations of about 0.02 at first: e^-4
        bias = inference["head"]["bias"].at[size:].set(-4.0)
        inference["head"] = inference["head"] | {"bias": bias}
        return VersaParams(encoder.init(key_encoder), inference)

    def adapt(params, support, key=None):
        z, onehot = embed_support(encoder, params.encoder, support, ways)
        h, shots = class_means(z, onehot)
        mu, log_sigma = jnp.split(network.apply(params.inference, h), 2, axis=1)
        psi = mu[None]
        if key is not None:
            noise = jax.random.normal(key, (samples, *mu.shape), mu.dtype)
            psi = psi + jnp.exp(log_sigma)[None] * noise
        return Weights(params.encoder, psi, shots)

    def predict(adapted, inputs, mask=None):
        z = forward(encoder, adapted.encoder, inputs, mask)
        w, b = adapted.psi[..., :-1], adapted.psi[..., -1]
        logits = jnp.einsum("nf,lkf->lnk", z, w) + b[:, None, :]
        logits = jax.vmap(mask_absent_classes, (0, None))(logits, adapted.shots)
        each = jax.nn.log_softmax(logits, axis=-1)
        finite = jnp.where(adapted.shots > 0, each, 0)  # -inf has no derivative
        mean = jax.scipy.special.logsumexp(finite, axis=0) - jnp.log(1.0 * len(each))
        return mask_absent_classes(mean, adapted.shots)

    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss)
