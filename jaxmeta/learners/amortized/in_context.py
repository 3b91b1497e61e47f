"""In-context learning: a transformer trained on tasks drawn from a prior.

Mueller, Hollmann, Pineda Arango, Grabocka, Hutter. Transformers Can Do Bayesian Inference.
ICLR 2022, arXiv 2112.10510 (prior-data fitted network, PFN). Trained with

    loss = E_{D, (x, y) ~ prior} -log q_theta(y | x, D)                   (eq. 2)

q_theta is nearest in relative entropy to the exact posterior predictive distribution.
Tokens: linear in x plus linear in y for the support, linear in x for queries; all look at
the support tokens only (section 4). No order, no positions: a set.

Departures:
- Regression predicts a normal distribution; the paper's is piecewise constant over
  buckets of y (a Riemann distribution).
- Labels of classes are embedded one-hot; the authors' code for tables embeds their
  number.
- A query looks at the support tokens alone; in the authors' code at itself, too.
- Columns are shifted and scaled by the support set's statistics (`normalize`); the
  authors' prior of tables does so for support and queries together.
- Activations are relu, and all matrices start at random; the authors' code has gelu,
  and starts each layer's output matrices at zero.

Meta-parameters: those of the embeddings and of the transformer.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses, models
from jaxmeta.batches import columns, one_hot
from jaxmeta.learners.gaussian import check_min_std, gaussian, likelihood_loss
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, PyTree


class PFNParams(NamedTuple):
    """Meta-parameters of an in-context learner."""

    embed_x: PyTree
    embed_y: PyTree
    reader: PyTree


class Context(NamedTuple):
    """An adapted in-context learner: what each layer makes of the support set."""

    params: PFNParams
    states: jax.Array  # [layers, examples, width]
    mask: jax.Array | None
    scaling: tuple[jax.Array, jax.Array]  # mean and deviation [x dims] of the inputs


def _scaling(support) -> tuple[jax.Array, Any]:
    """Mean and deviation of each column of the support inputs that count."""
    counts = jnp.ones(len(support.x)) if support.mask is None else support.mask
    weights = (counts > 0).astype(support.x.dtype)[:, None]
    weights = weights / jnp.maximum(jnp.sum(weights), 1)
    mean = jnp.sum(weights * support.x, axis=0)
    square = jnp.sum(weights * jnp.square(support.x - mean[None]), axis=0)
    # a column that is constant in the support set would explode in the query set
    return mean, jnp.where(square > 1e-6, jnp.sqrt(jnp.maximum(square, 1e-6)), 1.0)


@register(
    paper="Mueller et al. 2022, arXiv 2112.10510",
    learns=("classification", "regression"),
    networks=lambda n: [],
    tiny={"width": 8, "layers": 1, "heads": 2, "hidden": 8},
)
def in_context(
    *,
    ways: int | None = 5,
    x_dims: int = 1,
    width: int = 64,
    layers: int = 4,
    heads: int = 4,
    hidden: int = 128,
    normalize: bool = True,
    min_std: float = 1e-3,
) -> MetaLearner:
    """In-context learner: a transformer that reads a table and fills in its column y.

    Args:
        ways: classes of a task, at most; None for regression of one target.
        x_dims: columns of a table.
        width: of the tokens, a multiple of heads.
        layers: of the transformer.
        heads: of its attention.
        hidden: size of its dense layers.
        normalize: shift and scale columns by the support set's mean and deviation.
        min_std: the least standard deviation it predicts in regression.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways], or a `Gaussian`.
    Raises: ValueError for fewer than 2 ways, sizes below 1, a width that heads does not
        divide, or inputs of another number of columns.
    """
    if ways is not None:
        checks.check_sizes(2, ways=ways)
    check_min_std(min_std)
    checks.check_sizes(x_dims=x_dims, layers=layers, hidden=hidden)
    models.check_heads(width, heads)
    checks.check_flags(normalize=normalize)
    embed_x = models.mlp(x_dims, width, ())
    embed_y = models.mlp(ways or 1, width, ())
    reader = models.reader(
        ways or 2, width=width, heads=heads, hidden=hidden, layers=layers
    )

    def init(key):
        keys = jax.random.split(key, 3)
        parts = zip((embed_x, embed_y, reader), keys, strict=True)
        return PFNParams(*(part.init(k) for part, k in parts))

    def table(x):
        flat = columns(x)
        if flat.shape[1] != x_dims:
            raise ValueError(
                f"x_dims: expected inputs of {x_dims} columns, got {flat.shape[1]}; make "
                f"the learner with x_dims={flat.shape[1]}, or pad the table with zeros"
            )
        return flat

    def adapt(params, support, key=None):
        del key  # deterministic
        support = support._replace(x=table(support.x))
        y = support.y
        if ways is not None:
            y = one_hot(y, ways, support.mask, support.x.dtype)
        mean, std = _scaling(support)
        if not normalize:
            mean, std = jnp.zeros_like(mean), jnp.ones_like(std)
        x = (support.x - mean[None]) / std[None]
        tokens = embed_x.apply(params.embed_x, x) + embed_y.apply(params.embed_y, y)
        states = reader.encode(params.reader, tokens, support.mask)
        return Context(params, states, support.mask, (mean, std))

    def predict(adapted, inputs, mask=None):
        del mask  # queries are independent
        params, states, counts, (mean, std) = adapted
        x = (table(inputs) - mean[None]) / std[None]
        tokens = embed_x.apply(params.embed_x, x)
        outputs = reader.read(params.reader, states, tokens, counts)
        return outputs if ways is not None else gaussian(outputs, min_std)

    if ways is None:
        return MetaLearner(init, adapt, predict, likelihood_loss(adapt, predict))
    loss = query_loss(adapt, predict, losses.cross_entropy)
    return MetaLearner(init, adapt, predict, loss)
