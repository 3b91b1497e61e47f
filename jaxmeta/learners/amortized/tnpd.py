"""Transformer neural process, diagonal (TNP-D).

Nguyen, Grover. Transformer Neural Processes: Uncertainty-Aware Meta Learning Via Sequence
Modeling. ICML 2022, arXiv 2207.04179, section 4. Tokens of (x_i, y_i) for the support and
of (x, 0) for targets; all look at the support tokens, so that targets are independent:

    p(y_T | x_T, C) = prod_j N(y_j; mu_j, sigma_j^2)                     (eq. 6)

Departures: sigma_j is min_std + (1 - min_std) softplus; the authors' code has exp
without a bound, and 0.05 + 0.95 softplus with one.

Meta-parameters: those of the embedding and of the transformer.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, models
from jaxmeta.batches import columns
from jaxmeta.learners.gaussian import (
    check_min_std,
    gaussian,
    likelihood_loss,
    pairs,
)
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, PyTree


class TNPParams(NamedTuple):
    """Meta-parameters of a transformer neural process."""

    embed: PyTree
    reader: PyTree


class States(NamedTuple):
    """An adapted transformer: what each layer makes of the support set."""

    params: TNPParams
    states: jax.Array  # [layers, examples, width]
    mask: jax.Array | None


@register(
    paper="Nguyen and Grover 2022, arXiv 2207.04179",
    learns=("regression",),
    networks=lambda n: [],
    tiny={"width": 8, "layers": 1, "heads": 2, "hidden": 8},
)
def tnpd(
    *,
    x_dims: int = 1,
    y_dims: int = 1,
    width: int = 64,
    layers: int = 6,
    heads: int = 4,
    hidden: int = 128,
    min_std: float = 0.0,
) -> MetaLearner:
    """Transformer neural process with independent targets.

    Args:
        x_dims: size of an input.
        y_dims: size of a target.
        width: of the tokens, a multiple of heads.
        layers: of the transformer.
        heads: of its attention.
        hidden: size of its dense layers.
        min_std: the least standard deviation it can predict, in units of y.

    Returns: a `MetaLearner` for regression; `predict` gives a `Gaussian`.
    Raises: ValueError if min_std is not in [0, 1), sizes below 1, or a width that heads
        does not divide.
    """
    checks.check_sizes(x_dims=x_dims, y_dims=y_dims, layers=layers, hidden=hidden)
    models.check_heads(width, heads)
    check_min_std(min_std)
    embed = models.mlp(x_dims + y_dims, width, (width,) * 3)
    reader = models.reader(
        2 * y_dims, width=width, heads=heads, hidden=hidden, layers=layers
    )

    def init(key):
        key_embed, key_reader = jax.random.split(key)
        return TNPParams(embed.init(key_embed), reader.init(key_reader))

    def adapt(params, support, key=None):
        del key  # deterministic
        tokens = embed.apply(params.embed, pairs(support))
        states = reader.encode(params.reader, tokens, support.mask)
        return States(params, states, support.mask)

    def predict(adapted, inputs, mask=None):
        del mask  # targets are independent
        params, states, counts = adapted
        x = columns(inputs)
        blank = jnp.zeros((len(x), y_dims), x.dtype)
        tokens = embed.apply(params.embed, jnp.concatenate([x, blank], axis=1))
        return gaussian(reader.read(params.reader, states, tokens, counts), min_std)

    return MetaLearner(init, adapt, predict, likelihood_loss(adapt, predict))
