"""Inputs of mean 0 and deviation 1: by the source's numbers, or each domain by its own."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.learners.adaptation.domains import averaged

STANDARDS = "none", "source", "domain"


class Moments(NamedTuple):
    """Of each number of an input."""

    mean: jax.Array  # [...]
    deviation: jax.Array  # [...] 1 for what does not vary


def moments(x: jax.Array, weights: jax.Array, epsilon: float = 0.0) -> Moments:
    """Mean and deviation (of n, not n - 1) of x [n, ...] where weights [n] are 1.

    epsilon: added to each deviation. What hardly varies in one domain (a pixel at the
        edge) may vary in the other, where it would be some hundred deviations.
    """
    mean = averaged(x, weights)
    variance = averaged(jnp.square(x - mean[None]), weights)
    # a constant's mean is not exactly it: what is left is rounding, no deviation
    rounding = jnp.square(jnp.sum(weights) * jnp.finfo(x.dtype).eps * mean)
    varies = variance > rounding
    deviation = jnp.sqrt(jnp.where(varies, variance, 1)) + epsilon
    return Moments(mean, jnp.where(varies, deviation, 1))


def scaled(x: jax.Array, by: Moments) -> jax.Array:
    """x [n, ...], less the mean, in deviations."""
    return (x - by.mean[None]) / by.deviation[None]


def standardised(
    x: jax.Array,
    source: jax.Array,
    target: jax.Array,
    standardise: str,
    epsilon: float = 0.0,
) -> tuple[jax.Array, Moments | None]:
    """A support set x [n, ...], standardised, and the moments for the target's queries.

    source, target: weights [n]. standardise: "none", "source" or "domain". epsilon: as
    in `moments`.
    """
    if standardise == "none":
        return x, None
    of_source = moments(x, source, epsilon)
    if standardise == "source":
        return scaled(x, of_source), of_source
    of_target = moments(x, target, epsilon)
    is_source = jnp.reshape(source > 0, (-1,) + (1,) * (x.ndim - 1))
    return jnp.where(is_source, scaled(x, of_source), scaled(x, of_target)), of_target


def presence(source: jax.Array, target: jax.Array) -> jax.Array:
    """[] 1; NaN if one of the domains has no example, for what nothing can replace."""
    both = (jnp.sum(source) > 0) & (jnp.sum(target) > 0)
    return jnp.where(both, 1, jnp.nan).astype(source.dtype)


def check_standard(standardise: str, epsilon: float) -> None:
    """Raise ValueError for another name, or a negative number."""
    checks.check_choice("standardise", standardise, STANDARDS)
    checks.check_numbers(least=0, epsilon=epsilon)


def check_array(x) -> jax.Array:
    """x as floating numbers. Raises: ValueError for inputs that are no single array."""
    if not hasattr(x, "dtype"):
        raise ValueError(
            "standardise: expected inputs that are one array [examples, ...], got "
            f'{checks.said(x)}; give standardise="none"'
        )
    return x if checks.is_floating(x) else x.astype(jnp.result_type(float))
