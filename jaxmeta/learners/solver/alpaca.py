"""Adaptive learning for probabilistic connectionist architectures (ALPaCA).

Harrison, Sharma, Pavone. Meta-Learning Priors for Efficient Online Bayesian Regression.
WAFR 2018, arXiv 1807.08912. Bayesian linear regression on learned features,

    y = K' phi(x) + eps,   eps ~ N(0, Sigma),   K ~ MN(K0, Lambda0^-1, Sigma)

whose prior is learned with them. With support inputs Phi = phi(X) and targets Y:

    Lambda = Phi'Phi + Lambda0,   K = Lambda^-1 (Phi'Y + Lambda0 K0)
    y | x ~ N(K' phi(x), (1 + phi(x)' Lambda^-1 phi(x)) Sigma)

and training descends the negative log-likelihood of the query. Lambda0 = L0 L0' is positive
for every L0 that has an inverse.

Departures:
- Sigma is diagonal and learned, through the logarithms of its deviations; the paper takes
  it as known, the authors' code as one given number.
- K0 starts at 0 and L0 at sqrt(precision) I, where the authors' code draws both, so that it
  begins as ridge regression.
- A task keeps its support set; the authors' code draws how many of its points are seen,
  which here is a sampler's work (`tasks.gaussian_process`, `tasks.by_task(shots=(1, 10))`).

Meta-parameters: the encoder's, K0, L0, log sigma.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from jaxmeta import checks
from jaxmeta.batches import columns, forward, precise
from jaxmeta.learners.features import sized
from jaxmeta.learners.gaussian import Gaussian, likelihood_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class ALPaCAParams(NamedTuple):
    """Meta-parameters of ALPaCA."""

    encoder: PyTree
    k0: jax.Array  # [features, y dims]
    l0: jax.Array  # [features, features]
    log_sigma: jax.Array  # [y dims]


class Posterior(NamedTuple):
    """An adapted ALPaCA."""

    encoder: PyTree
    k: jax.Array  # [features, y dims]
    factor: jax.Array  # [features, features], lower, of Lambda
    sigma: jax.Array  # [y dims]


@register(
    paper="Harrison et al. 2018, arXiv 1807.08912",
    learns=("regression",),
    networks=lambda n: [n.encoder()],
)
def alpaca(
    encoder: Model,
    *,
    features: int = 64,
    y_dims: int = 1,
    precision: float = 1.0,
    std: float = 0.1,
) -> MetaLearner:
    """ALPaCA: Bayesian linear regression on learned features, with a learned prior.

    Args:
        encoder: the encoder phi, inputs -> [examples, features].
        features: how many numbers the encoder makes of an example.
        y_dims: numbers of a target.
        precision: initial Lambda0, as a multiple of the identity: how many observations
            of a feature of 1 the prior weighs.
        std: initial sigma, the deviation of the noise, in units of y.

    Returns: a `MetaLearner` for regression, y [examples, y dims]; `predict` gives a
        `Gaussian`. The loss is the mean negative log-likelihood of the query; the metrics
        also have it as `log_likelihood`, and the `mse` of the mean.
    Raises: ValueError for sizes below 1, or a precision or std that is not positive.

    >>> import jax, jax.numpy as jnp, jaxmeta as jm
    >>> as_it_is = jm.Model(lambda key: {}, lambda params, x: x)
    >>> learner = jm.alpaca(as_it_is, features=1)
    >>> params = learner.init(jax.random.key(0))
    >>> adapted = learner.adapt(params, jm.Batch(jnp.array([[2.0]]), jnp.array([[3.0]])))
    >>> mean = learner.predict(adapted, jnp.array([[1.0]])).mean
    >>> round(float(mean[0, 0]), 5)  # 2 * 3 / (2 * 2 + 1)
    1.2
    """
    encoder = sized(encoder, features)
    checks.check_sizes(y_dims=y_dims)
    checks.check_positive(precision=precision, std=std)

    def init(key):
        l0 = math.sqrt(precision) * jnp.eye(features, dtype=jnp.float32)
        k0 = jnp.zeros((features, y_dims), jnp.float32)
        log_sigma = jnp.full(y_dims, math.log(std), jnp.float32)
        return ALPaCAParams(encoder.init(key), k0, l0, log_sigma)

    def phi(params, x, mask):
        return precise(forward(encoder, params, x, mask))

    def adapt(params, support, key=None):
        del key  # deterministic
        x, y = phi(params.encoder, support.x, support.mask), precise(columns(support.y))
        if support.mask is not None:
            x, y = (jnp.where(support.mask[:, None] > 0, a, 0) for a in (x, y))
        k0, l0 = precise(params.k0), precise(params.l0)
        lambda0 = l0 @ l0.T
        factor = jnp.linalg.cholesky(x.T @ x + lambda0)
        k = cho_solve((factor, True), x.T @ y + lambda0 @ k0)
        return Posterior(params.encoder, k, factor, jnp.exp(params.log_sigma))

    def predict(adapted, inputs, mask=None):
        x = phi(adapted.encoder, inputs, mask)
        half = solve_triangular(adapted.factor, x.T, lower=True)
        spread = jnp.sqrt(1 + jnp.sum(half**2, axis=0))
        return Gaussian(x @ adapted.k, jnp.outer(spread, adapted.sigma))

    return MetaLearner(init, adapt, predict, likelihood_loss(adapt, predict))
