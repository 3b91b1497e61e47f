"""Sums of two sinusoids: slow and fast waves of random amplitudes and phases."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxmeta.checks import check_sizes
from jaxmeta.cli.options import Options, given_or
from jaxmeta.cli.sources.source import MSE, draw_curve, everywhere, source
from jaxmeta.types import Batch, Task

FREQUENCIES = (0.5, 1.5), (1.5, 3.0)  # of the slow and of the fast wave, ranges
AMPLITUDES = (0.5, 3.0), (0.1, 1.0)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[],
    meta_fields=["shots", "queries"],
)
@dataclass(frozen=True)
class Harmonics:
    """y = a_1 sin(w_1 x + phi_1) + a_2 sin(w_2 x + phi_2), x in [-5, 5]."""

    shots: int
    queries: int

    def sample(self, key: jax.Array) -> Task:
        """One function: x [shots, 1] and y [shots, 1], and the same for the query."""
        keys = jax.random.split(key, 5)
        low, high = jnp.array(FREQUENCIES).T
        w = jax.random.uniform(keys[0], (2,), minval=low, maxval=high)
        low, high = jnp.array(AMPLITUDES).T
        a = jax.random.uniform(keys[1], (2,), minval=low, maxval=high)
        phi = jax.random.uniform(keys[2], (2,), maxval=2 * math.pi)

        def batch(key, size):
            x = jax.random.uniform(key, (size, 1), minval=-5.0, maxval=5.0)
            waves = a[None] * jnp.sin(w[None] * x + phi[None])  # [size, 2]
            return Batch(x, jnp.sum(waves, axis=1, keepdims=True))

        return Task(batch(keys[3], self.shots), batch(keys[4], self.queries))


def harmonics(shots: int = 20, queries: int = 20) -> Harmonics:
    """Tasks that are sums of two sinusoids.

    Args: shots, queries: points in the support and in the query set.
    Returns: a sampler. Raises: ValueError without a support or query point.

    >>> task = harmonics(shots=5, queries=7).sample(jax.random.key(0))
    >>> task.support.x.shape, task.query.y.shape
    ((5, 1), (7, 1))
    """
    check_sizes(shots=shots, queries=queries)
    return Harmonics(shots, queries)


def _samplers(options: Options):
    points = given_or(options.shots, 20), given_or(options.queries, 20)
    return everywhere(harmonics(*points))


source(
    name="harmonics",
    description="sums of two sinusoids, a slow and a fast one",
    kind="regression",
    samplers=_samplers,
    headline=MSE,
    draw=draw_curve,
    defaults={
        **{"shots": 20, "queries": 20, "steps": 20_000, "tasks_per_step": 25},
        **{"model": "mlp", "width": 80},
    },
    default_learner="maml",
    options=("shots", "queries"),
    learner={"inner_lr": 0.01, "loss": "mse"},
)
