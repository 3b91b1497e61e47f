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

from jaxmeta import checks, losses
from jaxmeta.batches import columns, concatenate, forward
from jaxmeta.learners.features import mean_of
from jaxmeta.learners.registry import register
from jaxmeta.types import (
    AdaptFn,
    Batch,
    LossFn,
    MetaLearner,
    Model,
    PredictFn,
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


class Gaussian(NamedTuple):
    """Independent normal predictions, in units of the targets."""

    mean: jax.Array  # [examples, dims]
    std: jax.Array  # [examples, dims]


def log_likelihood(outputs: Gaussian, targets: jax.Array) -> jax.Array:
    """Log-density of each target, in nats.

    Args: outputs `Gaussian`, [examples, dims]; targets [examples, dims] or a tree.
    Returns: [examples], summed over dims.
    """
    y = columns(targets)
    return jnp.sum(jax.scipy.stats.norm.logpdf(y, outputs.mean, outputs.std), axis=-1)


def pairs(batch: Batch) -> jax.Array:
    """[examples, x dims + y dims]."""
    return columns((batch.x, batch.y))


def gaussian(outputs: jax.Array, min_std: float) -> Gaussian:
    """Network outputs [..., 2 * dims] as a mean and a deviation of at least min_std."""
    if outputs.shape[-1] % 2:
        raise ValueError(
            "decoder: expected an even number of outputs, mean and deviation of each "
            f"dimension of y, got {outputs.shape[-1]}"
        )
    mu, omega = jnp.split(outputs, 2, axis=-1)
    return Gaussian(mu, min_std + (1 - min_std) * jax.nn.softplus(omega))


def check_min_std(min_std: float) -> None:
    """Raise ValueError unless it is in [0, 1)."""
    checks.check_numbers(least=0, below=1, min_std=min_std)


def likelihood_loss(adapt: AdaptFn, predict: PredictFn) -> LossFn:
    """The mean negative log-likelihood of the query, `predict` giving a `Gaussian`.

    The metrics also have it as `log_likelihood`, and the `mse` of the mean.
    """

    def loss(params, task, key=None):
        adapted = adapt(params, task.support, key)
        query = task.query
        outputs = predict(adapted, query.x, query.mask)
        likelihood = losses.mean(log_likelihood(outputs, query.y), query.mask)
        error = losses.mean(losses.mse(outputs.mean, columns(query.y)), query.mask)
        metrics = {"loss": -likelihood, "log_likelihood": likelihood, "mse": error}
        return -likelihood, metrics

    return loss


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
