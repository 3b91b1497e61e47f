"""Baseline: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, close, loss, means, outputs, start, unit
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_training_on_classes_is_softmax_regression():
    learner = jm.simpleshot(IDENTITY, classes=WAYS, ways=WAYS, features=4)
    params = start(learner)
    f = lambda p: learner.objective(p, TASK, None, 0)[0]
    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(f))(params))
    x, y = map(np.asarray, TASK.query[:2])
    log_p = log_softmax(x @ np.asarray(params.w) + np.asarray(params.b), axis=1)
    close(value, -log_p[np.arange(len(y)), y].mean())
    assert not np.asarray(gradient.m).any()  # the mean is no matter of descent
    close(gradient.w, x.T @ (np.exp(log_p) - np.eye(WAYS)[y]) / len(y))


def test_baseline_ends_where_scikit_learn_does():
    """Steps with weight decay: the same penalised logistic regression."""
    import optax

    def decayed(rate):
        return optax.chain(optax.add_decayed_weights(0.1), optax.sgd(rate))

    learner = jm.baseline(
        IDENTITY,
        classes=4,
        ways=WAYS,
        features=4,
        inner_lr=0.5,
        inner_steps=3000,
        rule=decayed,
    )
    adapted = jax.device_get(jax.jit(learner.adapt)(start(learner), TASK.support))
    x, y = map(np.asarray, TASK.support[:2])
    columns = np.concatenate([x, np.ones((len(x), 1))], axis=1)  # penalised intercept
    theirs = LogisticRegression(
        C=1 / (0.1 * len(x)), fit_intercept=False, tol=1e-12, max_iter=100_000
    ).fit(columns, y)
    w = np.concatenate([adapted.head["w"], adapted.head["b"][None]])
    close(w, theirs.coef_.T, 1e-5)


def test_baseline_plus_plus_starts_from_the_class_means():
    make = lambda steps: jm.baseline_plus_plus(
        IDENTITY, classes=4, ways=WAYS, features=4, inner_steps=steps
    )
    params = make(0).init(jax.random.key(0))
    expected = 10 * unit(np.asarray(TASK.query.x)) @ unit(means(TASK)).T
    close(outputs(make(0), params, TASK), expected)
    fit = lambda steps: loss(make(steps), params, TASK._replace(query=TASK.support))
    assert fit(20) < fit(0)
