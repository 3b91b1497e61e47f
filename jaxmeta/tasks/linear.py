"""Linear regression with normal weights, whose exact answer is known.

y = x w + b + noise with x, w, b and the noise normal. After Garg et al. What Can
Transformers Learn In-Context? NeurIPS 2022, arXiv 2208.01066, section 3: their functions
have 20 dimensions, weight_std 1, and neither bias nor noise.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxmeta import losses
from jaxmeta.checks import check_numbers, check_positive, check_sizes
from jaxmeta.tasks.plain import one_program
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["weight_std", "bias_std", "noise"],
    meta_fields=["dims", "shots", "queries"],
)
@dataclass(frozen=True)
class Linear:
    """A distribution over linear functions."""

    dims: int
    shots: int
    queries: int
    weight_std: float
    bias_std: float
    noise: float

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One function: x [shots, dims] and y [shots, 1], and the same for the query."""
        key_w, key_b, key_support, key_query = jax.random.split(key, 4)
        w = self.weight_std * jax.random.normal(key_w, (self.dims, 1))
        b = self.bias_std * jax.random.normal(key_b)

        def batch(key, size):
            key_x, key_noise = jax.random.split(key)
            x = jax.random.normal(key_x, (size, self.dims))
            return Batch(
                x, x @ w + b + self.noise * jax.random.normal(key_noise, (size, 1))
            )

        return Task(batch(key_support, self.shots), batch(key_query, self.queries))

    def posterior(self, support: Batch, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Exact posterior of noisy observations at x, one point at a time.

        Args: support, x [n, dims], y [n, 1] and perhaps a mask; x [m, dims].
        Returns: mean and standard deviation, [m, 1] each.

        Source: Rasmussen, Williams. Gaussian Processes for Machine Learning. 2006,
        equation 2.9.
        """
        mask = 1.0 if support.mask is None else support.mask[:, None]
        seen, new = self._scaled(support.x) * mask, self._scaled(x)
        precision = jnp.eye(self.dims + 1) + seen.T @ seen / self.noise**2
        factor = jax.scipy.linalg.cho_factor(precision, lower=True)
        moment = seen.T @ (support.y * mask) / self.noise**2
        mean = new @ jax.scipy.linalg.cho_solve(factor, moment)
        solved = jax.scipy.linalg.cho_solve(factor, new.T)
        variance = jnp.sum(new.T * solved, axis=0) + self.noise**2
        return mean, jnp.sqrt(variance)[:, None]

    def exact_log_likelihood(self, key: jax.Array) -> jax.Array:
        """What no predictor of independent points can beat on average.

        The mean over the query points of the task `sample(key)` of the log-density, in
        nats, under the exact posterior. Returns: [].
        """
        task = self.sample(key)
        mean, std = self.posterior(task.support, task.query.x)
        density = jax.scipy.stats.norm.logpdf(task.query.y, mean, std)
        return losses.mean(density, task.query.mask)

    def _scaled(self, x):
        """[n, dims + 1] features of which all weights are standard normal."""
        one = jnp.ones((len(x), 1), x.dtype)
        return jnp.concatenate([self.weight_std * x, self.bias_std * one], axis=1)


def linear(
    dims: int = 1,
    shots: int = 10,
    queries: int = 10,
    *,
    weight_std: float = 1.0,
    bias_std: float = 1.0,
    noise: float = 0.1,
) -> Linear:
    """Tasks y = x w + b + noise, with the exact answer `posterior(support, x)`.

    Args:
        dims: numbers in an input, standard normal.
        shots, queries: points in the support and query set.
        weight_std, bias_std: standard deviations of w [dims] and b, around 0.
        noise: standard deviation of the targets of both sets.

    Returns: a sampler. Raises: ValueError for sizes below 1, a weight_std or noise that is
        not positive, a negative bias_std.

    >>> sampler = linear(dims=3, shots=5, queries=7)
    >>> task = sampler.sample(jax.random.key(0))
    >>> mean, std = sampler.posterior(task.support, task.query.x)
    >>> task.support.x.shape, mean.shape
    ((5, 3), (7, 1))
    """
    check_sizes(dims=dims, shots=shots, queries=queries)
    check_positive(weight_std=weight_std, noise=noise)
    check_numbers(least=0, bias_std=bias_std)
    return Linear(dims, shots, queries, weight_std, bias_std, noise)
