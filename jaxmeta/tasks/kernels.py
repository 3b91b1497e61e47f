"""Covariances of Gaussian processes by name: (a [n, d], b [m, d], length, scale) -> [n, m].

`scale` is the standard deviation of the process. `length` is [] for "rbf" and "matern52",
a pair (length, period) for "periodic", (length, period, decay) for "weakly_periodic".
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp

Kernel = Literal["rbf", "matern52", "periodic", "weakly_periodic"]


def squared_exponential(a, b, length, scale) -> jax.Array:
    """scale^2 exp(-|a - b|^2 / (2 length^2))."""
    return scale**2 * jnp.exp(-0.5 * _squared_distances(a, b, length))


def matern52(a, b, length, scale) -> jax.Array:
    """scale^2 (1 + r + r^2 / 3) exp(-r), r = sqrt(5) |a - b| / length.

    Source: Rasmussen, Williams. Gaussian Processes for Machine Learning. 2006,
    equation 4.17.
    """
    squared = 5 * _squared_distances(a, b, length)
    apart = squared > 0  # where not, the root would have no derivative
    r = jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)
    return scale**2 * (1 + r + jnp.square(r) / 3) * jnp.exp(-r)


def periodic(a, b, length, scale) -> jax.Array:
    """scale^2 exp(-2 sum_i sin^2(pi (a_i - b_i) / period) / length^2).

    As a squared exponential of points on circles, which rounding leaves positive definite:
    4 sin^2(pi (a - b) / p) = |circle(a) - circle(b)|^2. Source: Rasmussen,
    Williams, equation 4.31, for any period.
    """
    length, period = length
    return squared_exponential(_circle(a, period), _circle(b, period), length, scale)


def weakly_periodic(a, b, length, scale) -> jax.Array:
    """`periodic` times a squared exponential of length `decay`.

    Source: Gordon et al. Convolutional Conditional Neural Processes. ICLR 2020, arXiv
    1910.13556, with length 1, period 1/4, decay 2, scale 1.
    """
    length, period, decay = length
    repeated = periodic(a, b, (length, period), scale)
    return repeated * squared_exponential(a, b, decay, 1.0)


KERNELS = {
    "rbf": squared_exponential,
    "matern52": matern52,
    "periodic": periodic,
    "weakly_periodic": weakly_periodic,
}


def _circle(x, period):
    """[n, d] -> [n, 2 d], each coordinate on a circle whose circumference is a period."""
    angle = 2 * math.pi * x / period
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=1)


def _squared_distances(a, b, length):
    coordinates = zip(
        jnp.split(a, a.shape[1], 1), jnp.split(b, b.shape[1], 1), strict=True
    )
    return sum(jnp.square((u - v.T) / length) for u, v in coordinates)
