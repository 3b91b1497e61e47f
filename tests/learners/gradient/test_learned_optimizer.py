"""Learned optimiser: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_task import MODEL, W, X, Y, close, descended, query_loss, slope, start

import jaxmeta as jm
from jaxmeta.learners.gradient.parts import log_and_sign
from jaxmeta.models import lstm

pytestmark = pytest.mark.usefixtures("x64")


def test_log_and_sign_of_gradients():
    values = np.array([1.0, -np.e, 1e-3, 1e-6, -1e-6, 0.0])
    expected = [[0, 1], [0.1, -1], [np.log(1e-3) / 10, 1]]
    expected += [[-1, np.exp(10) * v] for v in values[3:]]
    close(jax.jit(log_and_sign)(values), expected)
    slope_at_0 = jax.jit(jax.grad(lambda v: log_and_sign(v).sum()))(np.zeros(1))
    assert np.isfinite(slope_at_0).all()


def test_learned_optimizer_sums_the_losses_along_the_way():
    learner = jm.learned_optimizer(MODEL, hidden=4, inner_steps=3, loss=jm.losses.mse)
    params = start(learner)

    @jax.jit
    def move(states, slopes):
        first = lstm.step(params["lstm1"], states[0], log_and_sign(slopes))
        second = lstm.step(params["lstm2"], states[1], first.h)
        out = second.h @ params["out"]["w"] + params["out"]["b"]
        return [first, second], out

    states, w, losses = [lstm.zero_state(8, 4, jnp.float64)] * 2, W, []
    for _ in range(3):
        states, out = move(states, slope(w).reshape(-1))
        w = w + 0.1 * np.asarray(out).reshape(4, 2)
        losses.append(np.mean(np.square(X @ w - Y)))
    (value, metrics), _ = descended(learner, params)
    np.testing.assert_allclose(value, np.mean(losses), rtol=1e-5)  # float32 weights
    np.testing.assert_allclose(metrics["loss"], query_loss(w), rtol=1e-5)


def test_a_learned_optimiser_takes_half_precision():
    init = jm.learned_optimizer(jm.models.mlp(), hidden=3).init
    w = jax.ShapeDtypeStruct((3,), jnp.bfloat16)

    def first(phi, w):
        rule = jm.lstm_optimizer(phi)
        before = rule.init(w)
        return *rule.update(w, before), before

    phi = jax.eval_shape(init, jax.random.key(0))
    updates, state, before = jax.eval_shape(first, phi, w)
    assert updates.dtype == jnp.bfloat16 and state == before
