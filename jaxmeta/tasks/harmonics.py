"""Sums of two sinusoids: slow and fast waves of random amplitudes and phases."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxmeta.checks import check_ranges, check_sizes
from jaxmeta.tasks.plain import one_program
from jaxmeta.tasks.sinusoid import uniform
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["frequencies", "amplitudes", "x_range"],
    meta_fields=["shots", "queries"],
)
@dataclass(frozen=True)
class Harmonics:
    """y = a_1 sin(w_1 x + phi_1) + a_2 sin(w_2 x + phi_2); the ranges are (low, high)."""

    shots: int
    queries: int
    frequencies: tuple[tuple[float, float], ...]  # of the slow and of the fast wave
    amplitudes: tuple[tuple[float, float], ...]
    x_range: tuple[float, float]

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One function: x [shots, 1] and y [shots, 1], and the same for the query."""
        keys = jax.random.split(key, 5)
        w = uniform(keys[0], (2,), jnp.array(self.frequencies).T)
        a = uniform(keys[1], (2,), jnp.array(self.amplitudes).T)
        phi = uniform(keys[2], (2,), (0.0, 2 * math.pi))

        def batch(key, size):
            x = uniform(key, (size, 1), self.x_range)
            waves = a[None] * jnp.sin(w[None] * x + phi[None])  # [size, 2]
            return Batch(x, jnp.sum(waves, axis=1, keepdims=True))

        return Task(batch(keys[3], self.shots), batch(keys[4], self.queries))


def harmonics(
    shots: int = 20,
    queries: int = 20,
    *,
    slow: tuple[float, float] = (0.5, 1.5),
    fast: tuple[float, float] = (1.5, 3.0),
    slow_amplitude: tuple[float, float] = (0.5, 3.0),
    fast_amplitude: tuple[float, float] = (0.1, 1.0),
    x_range: tuple[float, float] = (-5.0, 5.0),
) -> Harmonics:
    """Tasks that are sums of two sinusoids.

    Args:
        shots, queries: points in the support and in the query set.
        slow, fast: ranges of the two angular frequencies; the phases are any.
        slow_amplitude, fast_amplitude, x_range: ranges.

    Returns: a sampler. Raises: ValueError without a support or query point, or for a
        range that is not (low, high).

    >>> task = harmonics(shots=5, queries=7).sample(jax.random.key(0))
    >>> task.support.x.shape, task.query.y.shape
    ((5, 1), (7, 1))
    """
    check_sizes(shots=shots, queries=queries)
    check_ranges(slow=slow, fast=fast, x_range=x_range)
    check_ranges(slow_amplitude=slow_amplitude, fast_amplitude=fast_amplitude)
    amplitudes = slow_amplitude, fast_amplitude
    return Harmonics(shots, queries, (slow, fast), amplitudes, x_range)
