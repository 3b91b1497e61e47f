"""Support vector machines: numbers that our code did not produce."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_points import WAYS, close, crammer_singer

from jaxmeta.solvers.svm import svm_dual

pytestmark = pytest.mark.usefixtures("x64")


@partial(jax.jit, static_argnums=2)
def dual_of(gram, belongs, penalty):
    return svm_dual(gram, belongs, penalty)[0]


@pytest.mark.parametrize(
    ("n", "ways", "penalty"), [(10, 5, 0.1), (15, 3, 10.0), (40, 20, 0.1)]
)
def test_svm_is_scikit_learns(n, ways, penalty):
    random = np.random.default_rng(n)
    x = random.normal(size=(n, 8))
    y = np.arange(n) % ways
    wide = np.concatenate([x, np.eye(n)], axis=1)  # the kernel K + 1
    belongs = np.eye(ways)[y]
    alpha = np.asarray(dual_of(wide @ wide.T, belongs, penalty))
    close(alpha.sum(axis=0), np.zeros(n))  # feasible
    assert (alpha <= penalty * belongs.T + 1e-12).all()
    theirs = crammer_singer(wide, y, penalty)
    close(alpha @ wide, theirs, 1e-7)
    new = random.normal(size=(200, 8))  # and the same decisions
    ours = (new @ (alpha @ wide)[:, :8].T).argmax(axis=1)
    assert (ours == (new @ theirs[:, :8].T).argmax(axis=1)).all()
    # the dual's value is the primal's: no gap
    margins = wide @ theirs.T
    slack = (margins + 1 - belongs).max(axis=1) - margins[np.arange(n), y]
    primal = 0.5 * np.square(theirs).sum() + penalty * slack.sum()
    dual = (alpha.T * belongs).sum() - 0.5 * np.square(alpha @ wide).sum()
    close(dual, primal, 1e-8)


def test_svm_gradient_is_that_of_finite_differences():
    random = np.random.default_rng(0)
    x = random.normal(size=(12, 6))
    gram = jnp.asarray(x @ x.T + np.eye(12))
    belongs = jnp.asarray(np.eye(WAYS)[np.arange(12) % WAYS])
    weights = jnp.asarray(random.normal(size=(WAYS, 12)))
    f = jax.value_and_grad(
        lambda k: jnp.sum(jnp.sin(3 * svm_dual(k, belongs, 0.3)[0]) * weights)
    )
    f = jax.jit(f)
    gradient = f(gram)[1]
    for seed in range(3):
        e = np.random.default_rng(seed).normal(size=gram.shape)
        e = jnp.asarray((e + e.T) * 1e-6)
        slope = (f(gram + e)[0] - f(gram - e)[0]) / 2
        close((gradient * e).sum(), slope, 1e-5)
        assert abs(float(slope)) > 1e-8


def test_svm_forgets_padding():
    random = np.random.default_rng(0)
    x = random.normal(size=(9, 5))
    belongs = np.eye(WAYS)[np.arange(9) % WAYS]
    gram = x @ x.T + np.eye(9)
    more = np.zeros((12, 12))
    more[:9, :9], more[9:, 9:] = gram, np.eye(3)
    padded = np.asarray(dual_of(more, np.pad(belongs, ((0, 3), (0, 0))), 0.5))
    close(padded[:, :9], dual_of(gram, belongs, 0.5))
    assert not padded[:, 9:].any()
