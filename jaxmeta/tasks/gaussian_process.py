"""Gaussian-process regression, the test bed of neural processes.

Protocol of the Transformer Neural Processes code (Nguyen, Grover 2022, arXiv
2207.04179): squared-exponential kernel with length scale ~ U(0.1, 0.6), output scale
~ U(0.1, 1.0), noise 0.02, x ~ U(-2, 2); 3 to 46 context points, and 3 or more targets
so that both together are at most 49. Their other kernels are Matern 5/2, and a periodic one
with period ~ U(0.1, 0.5); the weakly periodic one is that of Gordon et al. 2020, arXiv
1910.13556, whose decay is 2.

Departures:
- The sizes of both sets are drawn for each task; the authors' code draws them once for
  each batch of tasks.
- In several dimensions the periodic kernel is a product over them, which is a covariance;
  the authors' code takes the sine of the sum of distances, which need not be one.
- The weakly periodic kernel has the lengths, scales and periods of the others; Gordon et
  al. have length 1, scale 1, period 1/4.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import keys, losses
from jaxmeta.checks import (
    check_choice,
    check_positive,
    check_ranges,
    check_sizes,
    lookup,
)
from jaxmeta.tasks.kernels import KERNELS, Kernel
from jaxmeta.tasks.plain import one_program
from jaxmeta.tasks.sinusoid import uniform
from jaxmeta.types import Batch, Task

JITTER = (
    1e-5  # variance added to that of the noise, so that single precision can factor
)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["noise", "x_limit", "length", "scale", "period", "decay"],
    meta_fields=["points", "kernel", "dims"],
)
@dataclass(frozen=True)
class GaussianProcess:
    """A distribution over functions drawn from Gaussian processes."""

    points: int
    noise: float
    x_limit: float
    kernel: Kernel
    dims: int
    length: tuple[float, float]
    scale: tuple[float, float]
    period: tuple[float, float]
    decay: tuple[float, float]

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One function; support and query are padded to `points` - 4 and masked."""
        return self.sample_with_kernel(key)[0]

    def sample_with_kernel(self, key: jax.Array) -> tuple[Task, Any, jax.Array]:
        """One task, and the length (as in `kernels`) and scale [] it was drawn with."""
        key_length, key_scale, key_x, key_y, key_noise, key_sizes = jax.random.split(
            key, 6
        )
        length = self._length(key_length, keys.purpose(key, "period"))
        scale = uniform(key_scale, (), self.scale)
        most = self.points - 4  # of either set, since the other has at least 3
        limits = -self.x_limit, self.x_limit
        x = uniform(key_x, (2 * most, self.dims), limits)
        covariance = KERNELS[self.kernel](x, x, length, scale)
        jitter = JITTER * jnp.eye(2 * most, dtype=x.dtype)
        factor = jnp.linalg.cholesky(covariance + jitter)
        y = factor @ jax.random.normal(key_y, (2 * most, 1))
        y = y + self.noise * jax.random.normal(key_noise, y.shape)

        key_support, key_query = jax.random.split(key_sizes)
        support = jax.random.randint(key_support, (), 3, self.points - 3)
        query = jax.random.randint(key_query, (), 3, self.points - support)
        first = lambda size: (jnp.arange(most) < size).astype(x.dtype)
        task = Task(
            Batch(x[:most], y[:most], first(support)),
            Batch(x[most:], y[most:], first(query)),
        )
        return task, length, scale

    def _length(self, key_length, key_rest):
        """All that its kernel calls length."""
        length = uniform(key_length, (), self.length)
        if self.kernel not in ("periodic", "weakly_periodic"):
            return length
        key_period, key_decay = jax.random.split(key_rest)
        period = uniform(key_period, (), self.period)
        if self.kernel == "periodic":
            return length, period
        return length, period, uniform(key_decay, (), self.decay)

    def exact_log_likelihood(self, key: jax.Array) -> jax.Array:
        """What no predictor of independent points can beat on average.

        The mean over the query points of the task `sample(key)` of the log-density, in
        nats, under the exact posterior of the process it was drawn from. Returns: [].
        """
        task, length, scale = self.sample_with_kernel(key)
        noise = jnp.sqrt(jnp.square(self.noise) + JITTER)  # all that is not smooth
        mean, std = posterior(
            task.support, task.query.x, length, scale, noise, self.kernel
        )
        density = jax.scipy.stats.norm.logpdf(task.query.y, mean, std)
        return losses.mean(density, task.query.mask)


def gaussian_process(
    *,
    points: int = 50,
    noise: float = 0.02,
    x_limit: float = 2.0,
    kernel: Kernel = "rbf",
    dims: int = 1,
    length: tuple[float, float] = (0.1, 0.6),
    scale: tuple[float, float] = (0.1, 1.0),
    period: tuple[float, float] = (0.1, 0.5),
    decay: tuple[float, float] = (2.0, 2.0),
) -> GaussianProcess:
    """Tasks drawn from Gaussian processes, with varying support and query sizes.

    Args:
        points: one more than the support and query points of a task together at most.
        noise: standard deviation of the observations, in units of y; 1e-5 more is in
            their variance, which `exact_log_likelihood` knows.
        x_limit: x is uniform in [-x_limit, x_limit], in each dimension.
        kernel: "rbf", "matern52", "periodic" or "weakly_periodic".
        dims: numbers in an input.
        length, scale: ranges of the length and output scale of a function.
        period: of the two periodic kernels, a range. decay: of "weakly_periodic", the
            length over which a function forgets its shape, a range.

    Returns: a sampler. Raises: ValueError for fewer than 7 points, an unknown kernel, a
        noise or limit that is not positive, or a range that is not 0 < low <= high.

    >>> task = gaussian_process().sample(jax.random.key(0))
    >>> task.support.x.shape, task.support.mask.shape
    ((46, 1), (46,))
    """
    check_sizes(7, points=points)  # 3 + 3 + 1
    check_positive(noise=noise, x_limit=x_limit)
    check_choice("kernel", kernel, KERNELS)
    check_sizes(dims=dims)
    ranges = {"length": length, "scale": scale, "period": period, "decay": decay}
    check_ranges(0, **ranges)
    check_positive(**{f"{name}[0]": low for name, (low, _) in ranges.items()})
    return GaussianProcess(points, noise, x_limit, kernel, dims, *ranges.values())


def posterior(
    support: Batch, x: jax.Array, length, scale, noise, kernel: Kernel = "rbf"
) -> tuple[jax.Array, jax.Array]:
    """Exact posterior of noisy observations at x, one point at a time.

    Args: support, x [n, d], y [n, 1] and perhaps a mask; x [m, d]; the kernel by name,
        with its length and scale as in `kernels`.
    Returns: mean and standard deviation, [m, 1] each.
    Raises: ValueError for an unknown kernel.

    Source: Rasmussen, Williams. Gaussian Processes for Machine Learning. 2006,
    algorithm 2.1.
    """
    covariance = lookup(KERNELS, kernel, "kernel")
    n = support.x.shape[0]
    mask = jnp.ones(n) if support.mask is None else support.mask
    # A masked point becomes one that is independent of everything and equal to 0.
    keep = mask[:, None] * mask[None, :]
    seen = covariance(support.x, support.x, length, scale) * keep
    seen = seen + noise**2 * jnp.eye(n, dtype=seen.dtype)
    cross = covariance(support.x, x, length, scale) * mask[:, None]
    factor = jax.scipy.linalg.cho_factor(seen, lower=True)
    mean = cross.T @ jax.scipy.linalg.cho_solve(factor, support.y * mask[:, None])
    explained = jnp.sum(cross * jax.scipy.linalg.cho_solve(factor, cross), axis=0)
    variance = jnp.maximum(scale**2 - explained, 0) + noise**2
    return mean, jnp.sqrt(variance)[:, None]
