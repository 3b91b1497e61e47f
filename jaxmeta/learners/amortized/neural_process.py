"""Neural process (NP): a conditional one with a latent variable.

Garnelo, Schwarz, Rosenbaum, Viola, Rezende, Eslami, Teh. Neural Processes. ICML 2018
workshop, arXiv 1807.01622. With the support (context) C and all points T:

    z ~ q(z | C) = N(mu_z, sigma_z^2), both from a set encoder of the pairs
    p(y | x, z, r) = N(mu, sigma^2),  (mu, omega) = g(x, r, z)
    log p(y_T | C) >= E_{q(z|T)} sum log p(y | x, z) - KL(q(z | T) | q(z | C))  (eq. 9)

with r the mean of h(x_i, y_i), the deterministic path of the attentive neural process
paper (Kim et al. 2019, arXiv 1901.05761, section 2.2) without its attention, and
sigma_z = 0.1 + 0.9 sigmoid(omega_z) as there. With K > 1 samples of z the bound is the
tighter one of Burda, Grosse, Salakhutdinov 2016 (arXiv 1509.00519, section 3):

    log p(y_T | C) >= E log mean_k p(y_T | z_k) q(z_k | C) / q(z_k | T),  z_k ~ q(z | T)

Departures:
- The decoder sees r besides z; in the 2018 paper z alone.
- The bound counts all points T, the support's too, as the attentive neural process's
  authors do; eq. 9 counts the targets alone.

Meta-parameters: those of h, of the latent encoder and of the decoder g.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import columns, concatenate, examples, forward
from jaxmeta.learners.amortized.cnp import (
    Gaussian,
    check_min_std,
    gaussian,
    log_likelihood,
    pairs,
)
from jaxmeta.learners.features import mean_of
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class NPParams(NamedTuple):
    """Meta-parameters of a neural process."""

    encoder: PyTree
    latent: PyTree
    decoder: PyTree


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


@register(
    paper="Garnelo et al. 2018, arXiv 1807.01622",
    learns=("regression",),
    networks=lambda n: [
        n.mlp(n.facts.x_dims + n.facts.y_dims, n.width),
        n.sets(n.facts.x_dims + n.facts.y_dims, 2 * n.width),
        n.mlp(n.facts.x_dims + 2 * n.width, 2 * n.facts.y_dims),
    ],
    tiny={"samples": 4},
)
def neural_process(
    encoder: Model,
    latent: Model,
    decoder: Model,
    *,
    min_std: float = 0.1,
    samples: int = 50,
    train_samples: int = 1,
) -> MetaLearner:
    """Neural process: predictions that agree with one sampled function.

    Args:
        encoder: h, [examples, x dims + y dims] -> [examples, features].
        latent: a set encoder, [examples, x dims + y dims] -> [2 * latents].
        decoder: g, [examples, x dims + features + latents] -> [examples, 2 * y dims].
        min_std: the least standard deviation it can predict, in units of y.
        samples: of z when adapting with a key; without one its mean is used.
        train_samples: of z when training; more make the bound tighter.

    Returns: a `MetaLearner` for regression; `predict` gives a `Gaussian` with the mean
        and deviation of the mixture of samples. The loss is minus the logarithm of the
        mixture's density, point by point; training descends minus the bound.
    Raises: ValueError if min_std is not in [0, 1), samples or train_samples below 1.
    """
    checks.check_models(encoder=encoder)

    def init(key):
        keys = jax.random.split(key, 3)
        parts = zip((encoder, latent, decoder), keys, strict=True)
        return NPParams(*(model.init(k) for model, k in parts))

    def deterministic(params, support):
        r_i = forward(encoder, params.encoder, pairs(support), support.mask)
        return mean_of(r_i, support.mask)

    def read(r, inputs):
        return jnp.broadcast_to(r[None], (len(inputs), *r.shape))

    return latent_process(
        init,
        deterministic,
        read,
        latent,
        decoder,
        min_std=min_std,
        samples=samples,
        train_samples=train_samples,
    )
