"""Sinusoid regression, the first experiment of the MAML paper.

Finn et al. 2017, arXiv 1703.03400, section 5.1: y = A sin(x - phi) with amplitude A in
[0.1, 5.0], phase phi in [0, pi] and x in [-5, 5], all uniform.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxmeta.checks import check_ranges, check_sizes
from jaxmeta.tasks.plain import one_program
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["amplitude", "phase", "x_range"],
    meta_fields=["shots", "queries"],
)
@dataclass(frozen=True)
class Sinusoid:
    """A distribution over sinusoids; the ranges are (low, high)."""

    shots: int
    queries: int
    amplitude: tuple[float, float]
    phase: tuple[float, float]
    x_range: tuple[float, float]

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One sinusoid: x [shots, 1] and y [shots, 1], and the same for the query."""
        key_amplitude, key_phase, key_support, key_query = jax.random.split(key, 4)
        amplitude = uniform(key_amplitude, (), self.amplitude)
        phase = uniform(key_phase, (), self.phase)

        def batch(key, size):
            x = uniform(key, (size, 1), self.x_range)
            return Batch(x, amplitude * jnp.sin(x - phase))

        return Task(batch(key_support, self.shots), batch(key_query, self.queries))


def sinusoid(
    shots: int = 10,
    queries: int = 10,
    *,
    amplitude: tuple[float, float] = (0.1, 5.0),
    phase: tuple[float, float] = (0.0, math.pi),
    x_range: tuple[float, float] = (-5.0, 5.0),
) -> Sinusoid:
    """Tasks y = A sin(x - phi) with A, phi (radians) and x uniform in their ranges.

    Args: shots and queries, points in the support and query set; the ranges.
    Returns: a sampler. Raises: ValueError without a support or query point, or for a
        range that is not (low, high).

    >>> task = sinusoid(shots=5, queries=7).sample(jax.random.key(0))
    >>> task.support.x.shape, task.query.y.shape
    ((5, 1), (7, 1))
    """
    check_sizes(shots=shots, queries=queries)
    check_ranges(amplitude=amplitude, phase=phase, x_range=x_range)
    return Sinusoid(shots, queries, amplitude, phase, x_range)


def uniform(key, shape, limits):
    """Uniform numbers between limits (low, high)."""
    low, high = limits
    return jax.random.uniform(key, shape, minval=low, maxval=high)
