"""Bootstrapped: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from linear_task import (
    MODEL,
    RANDOM,
    XQ,
    YQ,
    W,
    close,
    descended,
    numeric,
    query_loss,
    slope,
)

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_bootstrapped():
    learner = jm.bootstrapped(
        MODEL, inner_lr=0.1, inner_steps=2, target_steps=3, loss=jm.losses.mse
    )
    w = [W]
    for _ in range(4):
        w.append(w[-1] - 0.1 * slope(w[-1]))
    target = w[4] - 0.1 * slope(w[4], XQ, YQ)

    def loss(theta):
        for _ in range(2):
            theta = theta - 0.1 * slope(theta)
        return np.mean(np.square(XQ @ (theta - target)))

    params = learner.init(jax.random.key(0))
    (value, metrics), found = descended(learner, params)
    close(value, loss(W))
    close(found["kernel"], numeric(loss, W))
    close(metrics["loss"], query_loss(w[2]))


def test_bootstrapped_divergence_is_that_of_scipy():
    from scipy.stats import entropy

    from jaxmeta.learners.gradient.bootstrapped import _divergence

    target, outputs = RANDOM.normal(size=(2, 4, 3))
    p, q = (np.exp(a) / np.exp(a).sum(1, keepdims=True) for a in (target, outputs))
    found = jax.jit(_divergence, static_argnums=2)(target, outputs, True)
    close(found, entropy(p, q, axis=1))
