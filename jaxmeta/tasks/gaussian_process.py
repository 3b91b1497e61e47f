"""One-dimensional Gaussian-process regression, the test bed of neural processes.

Protocol of the Transformer Neural Processes code (Nguyen, Grover 2022, arXiv
2207.04179): squared-exponential kernel with length scale ~ U(0.1, 0.6), output scale
~ U(0.1, 1.0), noise 0.02, x ~ U(-2, 2); 3 to 46 context points, and 3 or more targets
so that both together are at most 49.

Departures: the sizes of both sets are drawn for each task; the authors' code draws them
once for each batch of tasks.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxmeta import losses
from jaxmeta.checks import check_positive, check_sizes
from jaxmeta.types import Batch, Task

LENGTH_SCALE = (0.1, 0.6)
OUTPUT_SCALE = (0.1, 1.0)
JITTER = (
    1e-5  # variance added to that of the noise, so that single precision can factor
)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["noise", "x_limit"],
    meta_fields=["points"],
)
@dataclass(frozen=True)
class GaussianProcess:
    """A distribution over functions drawn from Gaussian processes."""

    points: int
    noise: float
    x_limit: float

    def sample(self, key: jax.Array) -> Task:
        """One function; support and query are padded to `points` - 4 and masked."""
        return self.sample_with_kernel(key)[0]

    def sample_with_kernel(self, key: jax.Array) -> tuple[Task, jax.Array, jax.Array]:
        """One task, and the length and output scale [] it was drawn with."""
        key_length, key_scale, key_x, key_y, key_noise, key_sizes = jax.random.split(
            key, 6
        )
        length = jax.random.uniform(
            key_length, minval=LENGTH_SCALE[0], maxval=LENGTH_SCALE[1]
        )
        scale = jax.random.uniform(
            key_scale, minval=OUTPUT_SCALE[0], maxval=OUTPUT_SCALE[1]
        )
        most = self.points - 4  # of either set, since the other has at least 3
        x = jax.random.uniform(
            key_x, (2 * most, 1), minval=-self.x_limit, maxval=self.x_limit
        )
        covariance = squared_exponential(x, x, length, scale)
        jitter = JITTER * jnp.eye(2 * most, dtype=x.dtype)
        factor = jnp.linalg.cholesky(covariance + jitter)
        y = factor @ jax.random.normal(key_y, x.shape)
        y = y + self.noise * jax.random.normal(key_noise, x.shape)

        key_support, key_query = jax.random.split(key_sizes)
        support = jax.random.randint(key_support, (), 3, self.points - 3)
        query = jax.random.randint(key_query, (), 3, self.points - support)
        first = lambda size: (jnp.arange(most) < size).astype(x.dtype)
        task = Task(
            Batch(x[:most], y[:most], first(support)),
            Batch(x[most:], y[most:], first(query)),
        )
        return task, length, scale

    def exact_log_likelihood(self, key: jax.Array) -> jax.Array:
        """What no predictor of independent points can beat on average.

        The mean over the query points of the task `sample(key)` of the log-density, in
        nats, under the exact posterior of the process it was drawn from. Returns: [].
        """
        task, length, scale = self.sample_with_kernel(key)
        noise = jnp.sqrt(jnp.square(self.noise) + JITTER)  # all that is not smooth
        mean, std = posterior(task.support, task.query.x, length, scale, noise)
        density = jax.scipy.stats.norm.logpdf(task.query.y, mean, std)
        return losses.mean(density, task.query.mask)


def gaussian_process(
    *, points: int = 50, noise: float = 0.02, x_limit: float = 2.0
) -> GaussianProcess:
    """Tasks drawn from Gaussian processes, with varying support and query sizes.

    Args:
        points: one more than the support and query points of a task together at most.
        noise: standard deviation of the observations, in units of y; 1e-5 more is in
            their variance, which `exact_log_likelihood` knows.
        x_limit: x is uniform in [-x_limit, x_limit].

    Returns: a sampler. Raises: ValueError for fewer than 7 points, a noise or limit that
        is not positive.

    >>> task = gaussian_process().sample(jax.random.key(0))
    >>> task.support.x.shape, task.support.mask.shape
    ((46, 1), (46,))
    """
    check_sizes(7, points=points)  # 3 + 3 + 1
    check_positive(noise=noise, x_limit=x_limit)
    return GaussianProcess(points, noise, x_limit)


def squared_exponential(a, b, length, scale) -> jax.Array:
    """scale^2 exp(-(a - b)^2 / (2 length^2)): [n, 1], [m, 1] -> [n, m]."""
    return scale**2 * jnp.exp(-0.5 * jnp.square((a - b.T) / length))


def posterior(
    support: Batch, x: jax.Array, length, scale, noise
) -> tuple[jax.Array, jax.Array]:
    """Exact posterior of noisy observations at x, one point at a time.

    Args: support, x [n, 1], y [n, 1] and perhaps a mask; x [m, 1]; the kernel.
    Returns: mean and standard deviation, [m, 1] each.

    Source: Rasmussen, Williams. Gaussian Processes for Machine Learning. 2006,
    algorithm 2.1.
    """
    n = support.x.shape[0]
    mask = jnp.ones(n) if support.mask is None else support.mask
    # A masked point becomes one that is independent of everything and equal to 0.
    keep = mask[:, None] * mask[None, :]
    kernel = squared_exponential(support.x, support.x, length, scale) * keep
    kernel = kernel + noise**2 * jnp.eye(n, dtype=kernel.dtype)
    cross = squared_exponential(support.x, x, length, scale) * mask[:, None]
    factor = jax.scipy.linalg.cho_factor(kernel, lower=True)
    mean = cross.T @ jax.scipy.linalg.cho_solve(factor, support.y * mask[:, None])
    explained = jnp.sum(cross * jax.scipy.linalg.cho_solve(factor, cross), axis=0)
    variance = jnp.maximum(scale**2 - explained, 0) + noise**2
    return mean, jnp.sqrt(variance)[:, None]
