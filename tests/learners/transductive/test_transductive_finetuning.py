"""Transductive finetuning: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, close, means, outputs, unit
from scipy.special import softmax

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_transductive_finetuning_descends_support_and_entropy():
    import optax

    make = lambda steps: jm.transductive_finetuning(
        IDENTITY, classes=4, ways=WAYS, features=4, temperature=0.5, inner_steps=steps,
        inner_lr=0.1, rule=optax.sgd,
    )  # fmt: skip
    params = make(0).init(jax.random.key(0))
    z, q = unit(np.asarray(TASK.support.x)), unit(np.asarray(TASK.query.x))
    y, w = np.asarray(TASK.support.y), unit(means(TASK))
    close(outputs(make(0), params, TASK), q @ w.T / 0.5)
    # one step: the gradients of a softmax and of an entropy, written out
    p = softmax(z @ w.T / 0.5, axis=1)
    r = softmax(q @ w.T / 0.5, axis=1)
    log_r = np.log(r)
    entropy = -(r * log_r).sum(axis=1, keepdims=True)
    of_support = (p - np.eye(WAYS)[y]) / len(y)
    of_query = -r * (log_r + entropy) / len(q)
    grad_w = (of_support.T @ z + of_query.T @ q) / 0.5
    grad_b = of_support.sum(axis=0) + of_query.sum(axis=0)
    expected = q @ (w - 0.1 * grad_w).T / 0.5 - 0.1 * grad_b
    close(outputs(make(1), params, TASK), expected, 1e-8)
