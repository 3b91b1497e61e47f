"""Learned optimiser: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_task import MODEL, W, X, Y, close, descended, query_loss, slope

import jaxmeta as jm
from jaxmeta.learners.gradient.parts import log_and_sign
from jaxmeta.models import lstm

pytestmark = pytest.mark.usefixtures("x64")


def test_log_and_sign_of_gradients():
    values = np.array([1.0, -np.e, 1e-3, 1e-6, -1e-6, 0.0])
    expected = [[0, 1], [0.1, -1], [np.log(1e-3) / 10, 1]]
    expected += [[-1, np.exp(10) * v] for v in values[3:]]
    close(log_and_sign(jnp.asarray(values)), expected)
    assert jnp.isfinite(jax.grad(lambda v: log_and_sign(v).sum())(jnp.zeros(1))).all()


def test_learned_optimizer_sums_the_losses_along_the_way():
    learner = jm.learned_optimizer(MODEL, hidden=4, inner_steps=3, loss=jm.losses.mse)
    params = learner.init(jax.random.key(0))
    states, w, losses = [lstm.zero_state(8, 4, jnp.float64)] * 2, W, []
    for _ in range(3):
        seen = log_and_sign(jnp.asarray(slope(w).reshape(-1)))
        states[0] = lstm.step(params["lstm1"], states[0], seen)
        states[1] = lstm.step(params["lstm2"], states[1], states[0].h)
        out = states[1].h @ params["out"]["w"] + params["out"]["b"]
        w = w + 0.1 * np.asarray(out).reshape(4, 2)
        losses.append(np.mean(np.square(X @ w - Y)))
    (value, metrics), _ = descended(learner, params)
    np.testing.assert_allclose(value, np.mean(losses), rtol=1e-5)  # float32 weights
    np.testing.assert_allclose(metrics["loss"], query_loss(w), rtol=1e-5)


def test_a_learned_optimiser_takes_half_precision():
    phi = jm.learned_optimizer(jm.models.mlp(), hidden=3).init(jax.random.key(0))
    rule, w = jm.lstm_optimizer(phi), jnp.ones(3, jnp.bfloat16)
    updates, state = rule.update(w, rule.init(w))
    assert updates.dtype == jnp.bfloat16
    assert jax.eval_shape(lambda: state) == jax.eval_shape(lambda: rule.init(w))
