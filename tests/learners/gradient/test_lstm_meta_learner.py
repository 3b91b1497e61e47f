"""LSTM meta-learner: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_task import MODEL, OPTIONS, W, adapted, close, slope, start

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_lstm_meta_learner_starts_as_nearly_gradient_descent():
    learner = jm.lstm_meta_learner(MODEL, inner_lr=0.1, **OPTIONS)
    params = start(learner)
    gates = {"w": jnp.zeros(22), "b": jnp.asarray(-np.log(9))}  # sigmoid: 0.1
    forget = {"w": jnp.zeros(22), "b": jnp.asarray(np.log(99))}  # 0.99
    phi = params.phi | {"input": gates, "forget": forget}
    w = W
    for _ in range(3):
        w = 0.99 * w - 0.1 * slope(w)
    close(adapted(learner, params._replace(phi=phi))["kernel"], w)


def test_lstm_meta_learner_keeps_the_models_precision():
    """float32 parameters under x64, as Flax makes them."""
    learner = jm.lstm_meta_learner(jm.models.mlp(), loss=jm.losses.mse, hidden=3)
    params = jax.eval_shape(learner.init, jax.random.key(0))
    task = jax.eval_shape(jm.tasks.sinusoid().sample, jax.random.key(1))
    found = jax.eval_shape(learner.adapt, params, task.support)
    assert {w.dtype for w in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
