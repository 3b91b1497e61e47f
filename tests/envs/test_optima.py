"""Optima and agents against numbers of an independent program; what is simulated, in units
of its standard error."""

import numpy as np
import pytest

from jaxmeta.envs import baselines

slow = pytest.mark.slow
OPTIMA = {
    **{(10, 2): 6.0218, (10, 5): 6.6600, (10, 10): 6.7140, (10, 50): 6.7140},
    **{(20, 2): 12.4313, (20, 5): 14.2873, (50, 2): 31.9967, (100, 2): 64.9184},
}
COSTLY = {(20, 5), (100, 2)}


@pytest.mark.parametrize(
    "pulls, arms",
    [pytest.param(*c, marks=slow if c in COSTLY else ()) for c in OPTIMA],
)
def test_the_bandit_optimum(pulls, arms):
    optimum = baselines.bandit_optimum(arms, pulls)
    np.testing.assert_allclose(optimum, OPTIMA[pulls, arms], atol=1e-4)


def test_the_optimum_among_listed_bandits():
    optimum = lambda *tasks, pulls: baselines.bandit_optimum(2, pulls, chances=tasks)
    assert optimum((0.1, 0.9), (0.9, 0.1), pulls=1) == 0.5
    # one pull tells them apart: only the first can be wasted
    np.testing.assert_allclose(optimum((0, 1), (1, 0), pulls=10), 9.5)
    np.testing.assert_allclose(optimum((0.3, 0.8), pulls=20), 16)  # nothing is hidden


@slow
def test_the_optimum_of_the_misc_bandit():
    chances = (0.1, 0.9), (0.9, 0.1)
    optimum = baselines.bandit_optimum(2, 100, chances=chances)
    np.testing.assert_allclose(optimum, 89.375, atol=1e-3)
