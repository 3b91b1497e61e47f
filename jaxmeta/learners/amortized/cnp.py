"""Conditional neural process (CNP).

Garnelo, Rosenbaum, Maddison et al. Conditional Neural Processes. ICML 2018,
arXiv 1807.01613. With support O = {(x_i, y_i)} and a target input x:

    r_i = h_theta(x_i, y_i)                    (eq. 1)
    r   = mean of r_i                          (eq. 2, the commutative operation)
    p(y | x, O) = N(mu, sigma^2),  (mu, omega) = g_theta(x, r)      (eq. 3)
    sigma = s + (1 - s) softplus(omega),  s a lower bound (0.1 in the authors' code)
    L(theta) = -E log p({y_i} of support and query | O, {x_i})      (eq. 4)

Meta-parameters: theta, those of the encoder h and of the decoder g.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.batches import columns, concatenate, forward
from jaxmeta.learners.features import mean_of
from jaxmeta.learners.gaussian import (
    check_min_std,
    gaussian,
    likelihood_loss,
    pairs,
)
from jaxmeta.learners.registry import register
from jaxmeta.types import (
    MetaLearner,
    Model,
    PyTree,
    Task,
)


class CNPParams(NamedTuple):
    """Meta-parameters of a CNP."""

    encoder: PyTree
    decoder: PyTree


class Representation(NamedTuple):
    """An adapted CNP."""

    decoder: PyTree
    r: jax.Array  # [features]


@register(
    paper="Garnelo et al. 2018, arXiv 1807.01613",
    learns=("regression",),
    networks=lambda n: [
        n.mlp(n.facts.x_dims + n.facts.y_dims, n.width),
        n.mlp(n.facts.x_dims + n.width, 2 * n.facts.y_dims),
    ],
)
def cnp(encoder: Model, decoder: Model, *, min_std: float = 0.1) -> MetaLearner:
    """Conditional neural process: a network reads the support set, another predicts.

    Args:
        encoder: h, [examples, x dims + y dims] -> [examples, features].
        decoder: g, [examples, x dims + features] -> [examples, 2 * y dims].
        min_std: s, the least standard deviation it can predict, in units of y; above
            the noise of the data it limits the likelihood.

    Returns: a `MetaLearner` for regression, x [examples, x dims], y [examples, y dims],
        or trees of arrays, which are taken side by side;
        `predict` gives a `Gaussian`. The loss is the mean negative log-likelihood of the
        query; the metrics also have it as `log_likelihood`, and the `mse` of the mean.
        Training scores the support points too (eq. 4).
    Raises: ValueError if min_std is not in [0, 1).
    """
    checks.check_models(encoder=encoder, decoder=decoder)
    check_min_std(min_std)

    def init(key):
        key_encoder, key_decoder = jax.random.split(key)
        return CNPParams(encoder.init(key_encoder), decoder.init(key_decoder))

    def adapt(params, support, key=None):
        del key  # deterministic
        r_i = forward(encoder, params.encoder, pairs(support), support.mask)
        return Representation(params.decoder, mean_of(r_i, support.mask))

    def predict(adapted, inputs, mask=None):
        x = columns(inputs)
        r = jnp.broadcast_to(adapted.r, (len(x), *adapted.r.shape))
        joined = jnp.concatenate([x, r], axis=-1)
        return gaussian(forward(decoder, adapted.decoder, joined, mask), min_std)

    loss = likelihood_loss(adapt, predict)

    def of_all_points(params, task, key, step):
        del step
        everything = concatenate(task.support, task.query)
        return loss(params, Task(task.support, everything), key)

    return MetaLearner(init, adapt, predict, loss, of_all_points)
