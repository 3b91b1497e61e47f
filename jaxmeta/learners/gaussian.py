"""Normal predictions of a network, their likelihood, and rows of inputs and targets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import columns
from jaxmeta.types import AdaptFn, Batch, LossFn, PredictFn


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
