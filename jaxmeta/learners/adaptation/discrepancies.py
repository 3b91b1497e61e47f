"""How far apart two domains are, as kernels see them.

Gretton, Borgwardt, Rasch, Schoelkopf, Smola. A Kernel Two-Sample Test. JMLR 2012. With k
a kernel, x of the source and y of the target:

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)                          (lemma 6)

Every kernel here is Gaussian, k(a, b) = exp(-|a - b|^2 / (2 s)), with s the *square* of
its bandwidth; other libraries leave out the 2, or the square.
"""

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.batches import precise
from jaxmeta.learners.features import squared_distances

ESTIMATORS = "unbiased", "biased"
UNITS = "mean", "median", "none"


def squared_mmd(
    k: jax.Array, source: jax.Array, target: jax.Array, estimator: str = "unbiased"
) -> jax.Array:
    """MMD^2 of a kernel between all examples: k [n, n], weights [n] of each domain.

    estimator: "biased", means over all pairs, those of an example with itself too, >= 0
        (Gretton et al., eq. 5); "unbiased", without them, which may be negative (eq. 3).
    """
    own = jnp.diagonal(k) * (estimator == "unbiased")

    def within(weights):
        n = jnp.sum(weights)
        pairs = n * (n - 1 if estimator == "unbiased" else n)
        return (weights @ k @ weights - weights @ own) / jnp.maximum(pairs, 1)

    pairs = jnp.maximum(jnp.sum(source) * jnp.sum(target), 1)
    return within(source) + within(target) - 2 * (source @ k @ target) / pairs


def typical(z: jax.Array, weights: jax.Array, unit: str) -> jax.Array:
    """Squared distance between two examples that count: their mean, their median, or 1."""
    if unit == "none":
        return jnp.ones((), precise(z).dtype)
    pairs = weights[:, None] * weights[None, :] * (1 - jnp.eye(len(z), dtype=z.dtype))
    apart = squared_distances(*(precise(z),) * 2)
    if unit == "mean":
        found = jnp.sum(pairs * apart) / jnp.maximum(jnp.sum(pairs), 1)
    else:
        # infinite distances are sorted to the end, behind the pairs that count
        ordered = jnp.sort(jnp.where(pairs > 0, apart, jnp.inf), axis=None)
        last = jnp.sum(pairs > 0) - 1
        found = (ordered[last // 2] + ordered[(last + 1) // 2]) / 2
    return jnp.where(jnp.isfinite(found) & (found > 0), found, 1)


def gaussian(z: jax.Array, squared_bandwidths, unit: jax.Array | float) -> jax.Array:
    """Mean of Gaussian kernels: z [n, d] -> k [n, n], with s = squared bandwidth * unit."""
    apart = squared_distances(*(precise(z),) * 2) / unit
    kernels = [jnp.exp(-apart / (2 * s)) for s in squared_bandwidths]
    return sum(kernels[1:], kernels[0]) / len(kernels)


def check_kernels(estimator: str, squared_bandwidths, unit: str) -> None:
    """Raise ValueError for names that are none, or bandwidths that are not positive."""
    checks.check_choice("estimator", estimator, ESTIMATORS)
    checks.check_choice("unit", unit, UNITS)
    if not isinstance(squared_bandwidths, (tuple, list)) or not squared_bandwidths:
        raise ValueError(
            "squared_bandwidths: expected one number or more, e.g. (0.5, 1.0, 2.0), got "
            f"{checks.said(squared_bandwidths)}"
        )
    for i, s in enumerate(squared_bandwidths):
        checks.check_positive(**{f"squared_bandwidths[{i}]": s})
