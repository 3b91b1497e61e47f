"""Logistic: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import pytest
from few_points import IDENTITY, TASK, WAYS, Q, X, Y, close, outputs
from sklearn.linear_model import LogisticRegression

import jaxmeta as jm
from jaxmeta.solvers import logistic

pytestmark = pytest.mark.usefixtures("x64")


def test_logistic_regression_is_scikit_learns():
    y = (Y == 1).astype(float)
    theirs = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-12, max_iter=10_000)
    theirs.fit(X, Y == 1)
    close(logistic(jnp.asarray(X), jnp.asarray(y), 0.5), theirs.coef_[0], 1e-5)
    learner = jm.lrd2(IDENTITY, ways=WAYS, penalty=0.5, iterations=10)
    params = learner.init(jax.random.key(0))
    close(outputs(learner, params, TASK)[:, 1], Q @ theirs.coef_[0], 1e-5)
