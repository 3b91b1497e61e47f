"""Tables drawn from random networks: the prior of in-context learners.

After Mueller et al. 2022, arXiv 2112.10510, section 5.2 (a Bayesian neural network as
prior): inputs are normal, targets are a random network of them, cut at quantiles into
classes.

Departures:
- The network has one tanh layer of fixed width and normal weights; the authors' code
  draws depth, width, scale, sparsity and noise for each.
- Support sets have one size; the authors' code draws it.
- With several classes, each has as many examples; the paper's have two, cut at the
  median.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxmeta.checks import check_numbers, check_sizes
from jaxmeta.tasks.plain import one_program
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["noise"],
    meta_fields=["columns", "ways", "shots", "queries", "hidden"],
)
@dataclass(frozen=True)
class Tables:
    """A distribution over small tables."""

    columns: int
    ways: int | None
    shots: int
    queries: int
    hidden: int
    noise: float

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One table: x [n, columns], columns beyond a random number are 0; y [n] classes,
        or [n, 1] of mean 0 and variance 1 + noise^2."""
        keys = jax.random.split(key, 6)
        n = self.shots + self.queries
        used = jax.random.randint(keys[0], (), 1, self.columns + 1)
        x = jax.random.normal(keys[1], (n, self.columns))
        x = jnp.where(jnp.arange(self.columns)[None, :] < used, x, 0)
        w = jax.random.normal(keys[2], (self.columns, self.hidden))
        b = jax.random.normal(keys[3], (self.hidden,))
        v = jax.random.normal(keys[4], (self.hidden,))
        y = jnp.tanh(x @ w / jnp.sqrt(1.0 * used) + b[None, :]) @ v
        y = (y - jnp.mean(y)) / jnp.std(y)
        y = y + self.noise * jax.random.normal(keys[5], y.shape)
        if self.ways is None:
            targets = y[:, None]
        else:  # as many examples of each class, up to one
            rank = jnp.argsort(jnp.argsort(y))
            targets = (rank * self.ways // n).astype(jnp.int32)
        split = lambda a: (a[: self.shots], a[self.shots :])
        (x_support, x_query), (y_support, y_query) = split(x), split(targets)
        return Task(Batch(x_support, y_support), Batch(x_query, y_query))


def tables(
    columns: int = 5,
    ways: int | None = 2,
    shots: int = 30,
    queries: int = 10,
    *,
    hidden: int = 8,
    noise: float = 0.1,
) -> Tables:
    """Tables whose targets are random networks of their columns.

    Args:
        columns: of a table; a random number of them is used, the rest is 0.
        ways: classes; None for regression.
        shots, queries: rows of the support and of the query set.
        hidden: units of the random network. noise: standard deviation added to the
            targets, whose own is 1.

    Returns: a sampler. Raises: ValueError for sizes below 1, fewer than 2 ways, negative
        noise.

    >>> task = tables(columns=3, ways=2).sample(jax.random.key(0))
    >>> task.support.x.shape, task.query.y.shape
    ((30, 3), (10,))
    """
    check_sizes(columns=columns, shots=shots, queries=queries, hidden=hidden)
    if ways is not None:
        check_sizes(2, ways=ways)
    check_numbers(least=0, noise=noise)
    return Tables(columns, ways, shots, queries, hidden, noise)
