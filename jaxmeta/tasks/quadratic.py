"""Parabolas: three points without noise tell all.

y = a (x - c)^2 + b with curvature a, centre c, offset b and x uniform. Of no paper: the
smallest tasks on which an inner optimisation has a known end.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxmeta.checks import check_numbers, check_ranges, check_sizes
from jaxmeta.tasks.plain import one_program
from jaxmeta.tasks.sinusoid import uniform
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["noise", "curvature", "centre", "offset", "x_range"],
    meta_fields=["shots", "queries"],
)
@dataclass(frozen=True)
class Quadratic:
    """A distribution over parabolas; the ranges are (low, high)."""

    shots: int
    queries: int
    noise: float
    curvature: tuple[float, float]
    centre: tuple[float, float]
    offset: tuple[float, float]
    x_range: tuple[float, float]

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One parabola: x [shots, 1] and y [shots, 1], and the same for the query."""
        key_a, key_c, key_b, key_support, key_query = jax.random.split(key, 5)
        a = uniform(key_a, (), self.curvature)
        c = uniform(key_c, (), self.centre)
        b = uniform(key_b, (), self.offset)

        def batch(key, size):
            key_x, key_noise = jax.random.split(key)
            x = uniform(key_x, (size, 1), self.x_range)
            y = a * jnp.square(x - c) + b
            return Batch(x, y + self.noise * jax.random.normal(key_noise, y.shape))

        return Task(batch(key_support, self.shots), batch(key_query, self.queries))

    def optimum(self, support: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(a, c, b), [] each, of least squares: exact from 3 points without noise.

        Args: support, x [n, 1], y [n, 1] and perhaps a mask.
        Raises: ValueError for fewer than 3 points.
        """
        if len(support.x) < 3:
            raise ValueError(
                f"support: expected 3 points or more, got {len(support.x)}; sample the "
                "task with shots >= 3"
            )
        powers = jnp.concatenate([jnp.square(support.x), support.x], axis=1)
        powers = jnp.concatenate([powers, jnp.ones_like(support.x)], axis=1)
        mask = 1.0 if support.mask is None else support.mask[:, None]
        # p x^2 + q x + r = a (x - c)^2 + b
        p, q, r = jnp.linalg.lstsq(powers * mask, (support.y * mask)[:, 0])[0]
        return p, -q / (2 * p), r - jnp.square(q) / (4 * p)


def quadratic(
    shots: int = 3,
    queries: int = 10,
    *,
    noise: float = 0.0,
    curvature: tuple[float, float] = (0.5, 2.0),
    centre: tuple[float, float] = (-1.0, 1.0),
    offset: tuple[float, float] = (-1.0, 1.0),
    x_range: tuple[float, float] = (-2.0, 2.0),
) -> Quadratic:
    """Tasks y = a (x - c)^2 + b, with the exact answer `optimum(support)`.

    Args: shots and queries, points in the support and query set; noise, the standard
        deviation added to the targets of both; the ranges of a, c, b and x.
    Returns: a sampler. Raises: ValueError without a support or query point, for negative
        noise, or for a range that is not (low, high).

    >>> sampler = quadratic(centre=(0.5, 0.5))
    >>> a, c, b = sampler.optimum(sampler.sample(jax.random.key(0)).support)
    >>> round(float(c), 3)
    0.5
    """
    check_sizes(shots=shots, queries=queries)
    check_numbers(least=0, noise=noise)
    check_ranges(curvature=curvature, centre=centre, offset=offset, x_range=x_range)
    return Quadratic(shots, queries, noise, curvature, centre, offset, x_range)
