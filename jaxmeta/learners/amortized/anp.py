"""Attentive neural process (ANP).

Kim, Mnih, Schwarz, Garnelo, Eslami, Rosenbaum, Vinyals, Teh. Attentive Neural Processes.
ICLR 2019, arXiv 1901.05761, section 3. As the neural process, but what the deterministic
path makes of the support set depends on the target x:

    r_* = sum_i a(x_*, x_i) r_i,   r_i = h(x_i, y_i),   a multi-head attention
    p(y | x_*, r_*, z) = N(mu, sigma^2),  z ~ q(z | support)              (eq. 3)

Meta-parameters: those of h, of the attention, of the latent encoder and of the decoder.
"""

from typing import NamedTuple

import jax

from jaxmeta import checks
from jaxmeta.batches import columns, forward
from jaxmeta.learners.amortized.latent import latent_process
from jaxmeta.learners.gaussian import pairs
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class ANPParams(NamedTuple):
    """Meta-parameters of an attentive neural process."""

    encoder: PyTree
    latent: PyTree
    attention: PyTree
    decoder: PyTree


class Path(NamedTuple):
    """The deterministic path: what targets look at."""

    attention: PyTree
    x: jax.Array  # [examples, x dims]
    r: jax.Array  # [examples, features]
    mask: jax.Array | None


@register(
    paper="Kim et al. 2019, arXiv 1901.05761",
    learns=("regression",),
    networks=lambda n: [
        n.mlp(n.facts.x_dims + n.facts.y_dims, n.width),
        n.sets(n.facts.x_dims + n.facts.y_dims, 2 * n.width),
        n.attention(n.facts.x_dims, n.width),
        n.mlp(n.facts.x_dims + 2 * n.width, 2 * n.facts.y_dims),
    ],
    tiny={"samples": 4},
)
def anp(
    encoder: Model,
    latent: Model,
    attention: Model,
    decoder: Model,
    *,
    min_std: float = 0.1,
    samples: int = 50,
    train_samples: int = 1,
) -> MetaLearner:
    """Attentive neural process: each target looks at the support points near it.

    Args:
        encoder: h, [examples, x dims + y dims] -> [examples, features]; a
            `models.transformer` lets support points look at each other, as theirs do.
        latent: a set encoder, [examples, x dims + y dims] -> [2 * latents].
        attention: from targets to support points, see `models.cross_attention`;
            values of size features, result of any size r.
        decoder: [examples, x dims + r + latents] -> [examples, 2 * y dims].
        min_std: the least standard deviation it can predict, in units of y.
        samples: of z when adapting with a key; without one its mean is used.
        train_samples: of z when training; more make the bound tighter.

    Returns: a `MetaLearner`, as `neural_process`.
    Raises: ValueError if min_std is not in [0, 1), samples or train_samples below 1.
    """
    checks.check_models(encoder=encoder, attention=attention)

    def init(key):
        models = (encoder, latent, attention, decoder)
        keys = jax.random.split(key, 4)
        return ANPParams(*(m.init(k) for m, k in zip(models, keys, strict=True)))

    def deterministic(params, support):
        r = forward(encoder, params.encoder, pairs(support), support.mask)
        return Path(params.attention, columns(support.x), r, support.mask)

    def read(path, inputs):
        return attention.apply(path.attention, inputs, path.x, path.r, path.mask)

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
