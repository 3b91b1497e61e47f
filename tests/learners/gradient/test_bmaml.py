"""Bayesian MAML: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_task import (
    MODEL,
    RANDOM,
    XQ,
    YQ,
    W,
    X,
    Y,
    close,
    descended,
    loss_of,
    numeric,
    query_loss,
    slope,
)

import jaxmeta as jm
from jaxmeta.learners.gradient.bmaml import _svgd

pytestmark = pytest.mark.usefixtures("x64")


def test_svgd_step():
    """Equation 4 written out with loops, for three particles in two dimensions."""
    theta, g, n = RANDOM.normal(size=(3, 2)), RANDOM.normal(size=(3, 2)), 5
    squares = np.square(theta[:, None] - theta[None]).sum(-1)
    h = np.median(squares) / np.log(4) + 1e-8
    expected = np.zeros((3, 2))
    for m in range(3):
        for j in range(3):
            k = np.exp(-squares[j, m] / h)
            grad_k = -2 / h * (theta[j] - theta[m]) * k  # in theta_j
            expected[m] += k * (-n * g[j]) + grad_k
    rule = _svgd((0.1, n))
    update, _ = jax.jit(rule.update)(g, rule.init(theta), theta)
    close(update, 0.1 / n * expected / 3)


def test_bmaml_with_one_particle_chases_gradient_descent():
    learner = jm.bmaml(
        MODEL,
        particles=1,
        inner_lr=0.1,
        inner_steps=2,
        leader_steps=3,
        loss=jm.losses.mse,
    )
    both = np.concatenate([X, XQ]), np.concatenate([Y, YQ])

    def descend(w, steps, x, y):
        for _ in range(steps):
            w = w - 0.1 * slope(w, x, y)
        return w

    chaser = descend(W, 2, X, Y)
    leader = descend(chaser, 3, *both)
    params = {"kernel": jnp.asarray(W)[None]}
    (value, metrics), found = descended(learner, params)
    close(value, np.square(chaser - leader).sum())
    close(metrics["loss"], query_loss(chaser))
    close(loss_of(learner, params), query_loss(chaser))
    expected = numeric(lambda w: np.square(descend(w, 2, X, Y) - leader).sum(), W)
    close(found["kernel"][0], expected)
