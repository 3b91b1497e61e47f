"""Proximal: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from linear_task import MODEL, W, X, Y, close, descended, numeric

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_proximal_descends_the_moreau_envelope():
    penalty = 0.7
    learner = jm.proximal(
        MODEL, inner_lr=0.2, inner_steps=2000, penalty=penalty, loss=jm.losses.mse
    )

    def envelope(theta):
        system = 2 * X.T @ X / Y.size + penalty * np.eye(4)
        w = np.linalg.solve(system, 2 * X.T @ Y / Y.size + penalty * theta)
        away = penalty / 2 * np.sum(np.square(w - theta))
        return np.mean(np.square(X @ w - Y)) + away

    _, found = descended(learner, learner.init(jax.random.key(0)))
    close(found["kernel"], numeric(envelope, W))
