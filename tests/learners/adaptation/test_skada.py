"""CORAL beside skada, where it is installed."""

import jax.numpy as jnp
import numpy as np
import pytest
from few_points import close

from jaxmeta.learners.adaptation.coral import align

skada = pytest.importorskip("skada")
pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("of_target", [30, 19])
def test_alignment_is_that_of_skada(of_target):
    """skada's covariances are over n, and both of its domains end with the mean 0."""
    random, of_source, d = np.random.default_rng(0), 30, 5
    x_s = random.normal(size=(of_source, d)) @ random.normal(size=(d, d)) + 3
    x_t = random.normal(size=(of_target, d)) @ random.normal(size=(d, d)) - 1
    x, counts = np.concatenate([x_s, x_t]), [of_source, of_target]
    theirs = skada.CORALAdapter(reg=None).fit_transform(
        x, np.zeros(len(x)), sample_domain=np.repeat([1, -2], counts)
    )
    source = np.repeat([1.0, 0.0], counts)
    given = [jnp.asarray(a) for a in (x, source, 1 - source)]
    ours = np.asarray(align(*given, regularization=0.0)) - x_t.mean(axis=0)
    factor = np.sqrt((1 - 1 / of_target) / (1 - 1 / of_source))  # theirs over ours
    close(ours[:of_source] * factor, theirs[:of_source], 1e-8)
    close(x_t - x_t.mean(axis=0), theirs[of_source:], 1e-8)
