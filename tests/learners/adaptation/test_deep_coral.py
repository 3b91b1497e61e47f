"""Deep CORAL: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import close

from jaxmeta.learners.adaptation.deep_coral import covariance, l_coral

pytestmark = pytest.mark.usefixtures("x64")


def test_loss_is_the_distance_of_numpys_covariances():
    """|C_S - C_T|_F^2 / (4 d^2), with n - 1 and both domains centred."""
    random = np.random.default_rng(0)
    z = 2 + random.normal(size=(12, 4)) @ random.normal(size=(4, 4))
    source = np.array([1.0, 0] * 5 + [0, 0])
    target = np.array([0.0, 1] * 5 + [1, 0])  # the last one is padding
    c_s, c_t = (np.cov(z[w > 0], rowvar=False, ddof=1) for w in (source, target))
    close(jax.jit(covariance)(z, source), c_s, 1e-12)
    found = jax.jit(l_coral)(z, source, target)
    close(found, np.sum((c_s - c_t) ** 2) / (4 * 4**2), 1e-12)
