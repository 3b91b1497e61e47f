"""Sinusoids or lines with noise: few points do not tell which.

Finn, Xu, Levine. Probabilistic Model-Agnostic Meta-Learning. NeurIPS 2018, arXiv
1806.02817, section 5, ambiguous 5-shot regression: half of the tasks are sinusoids of
amplitude in [0.1, 5.0] and phase in [0, pi], half are lines of slope and intercept in
[-3, 3]; x in [-5, 5], all uniform, and normal noise of 0.3 is added to all targets.
"""

import math
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
    data_fields=["noise", "amplitude", "phase", "slope", "intercept", "x_range"],
    meta_fields=["shots", "queries"],
)
@dataclass(frozen=True)
class SinusoidOrLine:
    """A distribution over sinusoids and lines; the ranges are (low, high)."""

    shots: int
    queries: int
    noise: float
    amplitude: tuple[float, float]
    phase: tuple[float, float]
    slope: tuple[float, float]
    intercept: tuple[float, float]
    x_range: tuple[float, float]

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One function: x [shots, 1] and y [shots, 1], and the same for the query."""
        keys = jax.random.split(key, 7)
        line = jax.random.bernoulli(keys[0])
        ranges = self.amplitude, self.phase, self.slope, self.intercept
        drawn = [uniform(k, (), r) for k, r in zip(keys[1:5], ranges, strict=True)]
        amplitude, phase, slope, intercept = drawn

        def batch(key, size):
            key_x, key_noise = jax.random.split(key)
            x = uniform(key_x, (size, 1), self.x_range)
            wave = amplitude * jnp.sin(x - phase)
            y = jnp.where(line, slope * x + intercept, wave)
            return Batch(x, y + self.noise * jax.random.normal(key_noise, y.shape))

        return Task(batch(keys[5], self.shots), batch(keys[6], self.queries))


def sinusoid_or_line(
    shots: int = 5,
    queries: int = 10,
    *,
    noise: float = 0.3,
    amplitude: tuple[float, float] = (0.1, 5.0),
    phase: tuple[float, float] = (0.0, math.pi),
    slope: tuple[float, float] = (-3.0, 3.0),
    intercept: tuple[float, float] = (-3.0, 3.0),
    x_range: tuple[float, float] = (-5.0, 5.0),
) -> SinusoidOrLine:
    """Tasks y = A sin(x - phi) or, as often, y = slope x + intercept, with noise.

    Args: shots and queries, points in the support and query set; noise, the standard
        deviation added to the targets of both; the ranges, phase in radians.
    Returns: a sampler. Raises: ValueError without a support or query point, for negative
        noise, or for a range that is not (low, high).

    >>> task = sinusoid_or_line(shots=5, queries=7).sample(jax.random.key(0))
    >>> task.support.x.shape, task.query.y.shape
    ((5, 1), (7, 1))
    """
    check_sizes(shots=shots, queries=queries)
    check_numbers(least=0, noise=noise)
    check_ranges(amplitude=amplitude, phase=phase)
    check_ranges(slope=slope, intercept=intercept, x_range=x_range)
    ranges = amplitude, phase, slope, intercept, x_range
    return SinusoidOrLine(shots, queries, noise, *ranges)
