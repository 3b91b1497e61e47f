"""What neural processes with a latent variable have in common."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import columns, concatenate, examples, forward
from jaxmeta.learners.gaussian import (
    Gaussian,
    check_min_std,
    gaussian,
    log_likelihood,
    pairs,
)
from jaxmeta.types import MetaLearner, Model, PyTree


class Latent(NamedTuple):
    """An adapted neural process: samples of z, and the deterministic path."""

    decoder: PyTree
    z: jax.Array  # [samples, latents]
    path: PyTree


def _log_density(z: jax.Array, q: Gaussian) -> jax.Array:
    """log q(z) of each sample: [samples, latents] -> [samples]."""
    scores = jax.vmap(jax.scipy.stats.norm.logpdf, (0, None, None))(z, *q)
    return jnp.sum(scores, axis=-1)


def _divergence(q: Gaussian, p: Gaussian) -> jax.Array:
    """KL(q | p) of independent normals, summed. Returns: []."""
    ratio = jnp.square(q.std / p.std)
    away = jnp.square((q.mean - p.mean) / p.std)
    return 0.5 * jnp.sum(ratio + away - 1 - jnp.log(ratio))


def latent_process(
    init,
    deterministic,
    read,
    latent: Model,
    decoder: Model,
    *,
    min_std: float,
    samples: int,
    train_samples: int,
) -> MetaLearner:
    """What neural processes with a latent variable have in common.

    Args:
        init: key -> params, with fields `latent` and `decoder`.
        deterministic: (params, support) -> path, what else is kept of the support set.
        read: (path, inputs) -> r [n, features].
        latent, decoder, min_std, samples, train_samples: as in `neural_process`.

    Raises: ValueError if min_std is not in [0, 1), a number of samples is below 1.
    """
    checks.check_models(latent=latent, decoder=decoder)
    check_min_std(min_std)
    checks.check_sizes(samples=samples, train_samples=train_samples)

    def posterior(params, batch) -> Gaussian:
        out = forward(latent, params.latent, pairs(batch), batch.mask)
        if out.ndim != 1 or out.size % 2:
            raise ValueError(
                "latent: expected one vector for a set, of means and as many deviations "
                f"(`models.set_encoder`), got an array of shape {out.shape}"
            )
        mean, omega = jnp.split(out, 2)
        return Gaussian(mean, 0.1 + 0.9 * jax.nn.sigmoid(omega))

    def draw(key, q, number):
        if key is None:
            return q.mean[None]
        noise = jax.random.normal(key, (number, len(q.mean)), q.mean.dtype)
        return q.mean[None] + q.std[None] * noise

    def adapt(params, support, key=None):
        z = draw(key, posterior(params, support), samples)
        return Latent(params.decoder, z, deterministic(params, support))

    def each(adapted, inputs, mask) -> Gaussian:
        """The prediction of each sample: [samples, n, dims]."""
        x = columns(inputs)
        r = read(adapted.path, x)

        def one(z):
            rows = jnp.broadcast_to(z[None], (len(x), len(z)))
            joined = jnp.concatenate([x, r, rows], axis=-1)
            return gaussian(forward(decoder, adapted.decoder, joined, mask), min_std)

        return jax.vmap(one)(adapted.z)

    def predict(adapted, inputs, mask=None):
        return _moments(each(adapted, inputs, mask))

    def loss(params, task, key=None):
        adapted = adapt(params, task.support, key)
        query = task.query
        outputs = each(adapted, query.x, query.mask)
        density = jax.vmap(log_likelihood, (0, None))(outputs, query.y)
        value = losses.mean(_log_mean_exp(density), query.mask)
        error = losses.mean(
            losses.mse(_moments(outputs).mean, columns(query.y)), query.mask
        )
        return -value, {"loss": -value, "log_likelihood": value, "mse": error}

    def bound(params, task, key, step):
        """Minus the bound for each point: eq. 9, with several z that of Burda et al."""
        del step
        support, query = task
        everything = concatenate(support, query)
        prior, q = posterior(params, support), posterior(params, everything)
        z = draw(key, q, train_samples)
        adapted = Latent(params.decoder, z, deterministic(params, support))
        outputs, mask = each(adapted, everything.x, everything.mask), everything.mask
        density = jax.vmap(log_likelihood, (0, None))(outputs, everything.y)
        fit = jax.vmap(losses.mean, (0, None))(density, mask)
        points = examples(everything) if mask is None else jnp.sum(mask > 0)
        if len(z) == 1:
            value = _divergence(q, prior) / points - fit[0]
        else:
            log_ratio = _log_density(z, prior) - _log_density(z, q)
            value = -_log_mean_exp(points * fit + log_ratio) / points
        return value, {"loss": value}

    return MetaLearner(init, adapt, predict, loss, bound)


def _log_mean_exp(values: jax.Array) -> jax.Array:
    """Over the samples, the first axis."""
    return jax.scipy.special.logsumexp(values, axis=0) - jnp.log(1.0 * len(values))


def _moments(outputs: Gaussian) -> Gaussian:
    """Mean and deviation of the mixture of the samples, [n, dims]."""
    mean = jnp.mean(outputs.mean, axis=0)
    spread = jnp.square(outputs.mean - mean[None]) + jnp.square(outputs.std)
    return Gaussian(mean, jnp.sqrt(jnp.mean(spread, axis=0)))
