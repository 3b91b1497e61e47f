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

from jaxmeta import checks
from jaxmeta.batches import forward
from jaxmeta.learners.amortized.latent import latent_process
from jaxmeta.learners.features import mean_of
from jaxmeta.learners.gaussian import pairs
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class NPParams(NamedTuple):
    """Meta-parameters of a neural process."""

    encoder: PyTree
    latent: PyTree
    decoder: PyTree


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
