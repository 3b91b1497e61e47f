"""The network of a recommender: who a user is and what an item is, embedded, then layers.

Lee, Im, Jang, Cho, Chung. MeLU: Meta-Learned User Preference Estimator for Cold-Start
Recommendation. KDD 2019, arXiv 1908.00413, section 3.1: the embeddings of all that is known
of user and item, side by side, then dense layers with relu.

Departure: the item itself has an embedding, which the paper's items do not; of an item
that training has not seen it is what it was at the start.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from jax.nn import initializers

from jaxmeta import checks
from jaxmeta.boundary import remembered
from jaxmeta.models import layers, parameters
from jaxmeta.models.parameters import Parameter
from jaxmeta.types import Model


@remembered
def rater(
    items: int,
    outputs: int = 1,
    hidden: tuple[int, ...] = (64, 64),
    *,
    width: int = 32,
    user: tuple[int, ...] = (2, 7, 21, 11),
    genres: int = 18,
    std: float = 0.1,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
) -> Model:
    """Embeddings of user and item, then dense layers, by default with relu.

    Args:
        items: how many there are. outputs: numbers for each example.
        hidden: widths of the hidden layers. width: of each embedding.
        user: how many values each fact of a user may have; gender, group of age, occupation
            and region as `jm.data.ratings` has them.
        genres: how many there are. std: of embeddings at the start.
        activation: of the hidden layers.

    Returns: a `Model`; x is the dict of `jm.data.ratings`, "item" [n], "user" [n, facts],
        "genres" [n, genres] of 0 and 1, whose embeddings are averaged. -> [n, outputs].
        Parameters: `embeddings`, a dict of tables [values, width]; `dense1`, ..., `head`.
        A number that has no row in a table gives NaN.
    Raises: ValueError for sizes below 1, or inputs that are no such dict.

    >>> import jax, jaxmeta as jm
    >>> params = jm.models.rater(9, width=4, hidden=(3,)).init(jax.random.key(0))
    >>> params["embeddings"]["item"].shape, params["dense1"]["kernel"].shape
    ((9, 4), (24, 3))
    """
    checks.check_sizes(items=items, outputs=outputs, width=width, genres=genres)
    checks.check_shapes(hidden=hidden, user=user)
    checks.check_positive(std=std)
    checks.check_functions(activation=activation)
    start = initializers.normal(std)
    rows = {"item": items, "genres": genres} | {
        f"user{i}": n for i, n in enumerate(user)
    }
    tables = {name: Parameter((n, width), start) for name, n in rows.items()}
    names = (*(f"dense{i}" for i in range(1, len(hidden) + 1)), "head")
    sizes = (len(rows) * width, *hidden, outputs)
    dense = {
        n: parameters.dense(*ends)
        for n, ends in zip(names, pairwise(sizes), strict=True)
    }
    description = {"embeddings": tables} | dense

    def apply(params, x):
        _check_inputs(x, len(user), genres)
        parameters.check_params(description, params)
        h = embedded(params["embeddings"], x)
        for name in names[:-1]:
            h = activation(layers.dense(params[name], h))
        return layers.dense(params["head"], h)

    return Model(partial(parameters.fill, description), apply)


def embedded(tables: dict, x: dict) -> jax.Array:
    """All that is known of user and item, side by side: [n, (2 + facts) * width]."""
    genres = x["genres"].astype(tables["genres"].dtype)
    several = jnp.maximum(jnp.sum(genres, axis=1, keepdims=True), 1)
    facts = x["user"].astype(jnp.int32)
    users = [row(tables[f"user{i}"], facts[:, i]) for i in range(facts.shape[1])]
    item = row(tables["item"], x["item"].astype(jnp.int32))
    return jnp.concatenate([item, genres / several @ tables["genres"], *users], axis=1)


def row(table: jax.Array, number: jax.Array) -> jax.Array:
    """Rows of a table [values, width], NaN for a number that is none. [n] -> [n, width]."""
    within = (number >= 0) & (number < len(table))
    rows = table[jnp.clip(number, 0, len(table) - 1)]
    return rows * jnp.where(within, 1.0, jnp.nan).astype(table.dtype)[:, None]


def _check_inputs(x, facts: int, genres: int) -> None:
    shapes = (
        {name: jnp.shape(a)[1:] for name, a in x.items()} if isinstance(x, dict) else {}
    )
    wanted = {"item": (), "user": (facts,), "genres": (genres,)}
    if not wanted.items() <= shapes.items():
        raise ValueError(
            f"rater: expected inputs that are a dict of item [n], user [n, {facts}] and "
            f"genres [n, {genres}], as jm.data.ratings has them, got "
            f"{shapes or checks.said(x)}"
        )
