"""MeLU's local update against a Python loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import double, largest_difference, one_user

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")

MODEL = jm.models.rater(6, hidden=(4,), width=2, activation=jnp.tanh)
RATE, STEPS = 0.05, 3


@pytest.fixture(scope="module")
def given():
    with jax.enable_x64(True):
        return double(MODEL.init(jax.random.key(1))), double(one_user())


def by_hand(params, task, first_order=False):
    """(adapted, query loss): steps of the layers above, embeddings as they are."""
    stop = jax.lax.stop_gradient if first_order else lambda g: g
    error = lambda w, b: jnp.mean(jnp.square(MODEL.apply(w, b.x) - b.y))
    w, theta_1 = params, params["embeddings"]
    for _ in range(STEPS):
        g = stop(jax.grad(error)(w, task.support))
        w = jax.tree.map(lambda p, d: p - RATE * d, w, g) | {"embeddings": theta_1}
    return w, error(w, task.query)


@pytest.mark.parametrize("first_order", [False, True])
def test_the_local_update_is_a_loop(given, first_order):
    params, task = given
    adjoint = jm.FirstOrder() if first_order else jm.MixedMode()
    learner = jm.melu(MODEL, inner_lr=RATE, inner_steps=STEPS, adjoint=adjoint)
    loss = lambda p: by_hand(p, task, first_order)[1]
    adapted = jax.jit(learner.adapt)(params, task.support)
    wanted, slope = jax.jit(lambda p: (by_hand(p, task)[0], jax.grad(loss)(p)))(params)
    assert largest_difference(adapted, wanted) < 1e-10
    assert largest_difference(adapted["embeddings"], params["embeddings"]) == 0
    assert largest_difference(adapted["head"], params["head"]) > 1e-3
    found = jax.jit(jax.grad(lambda p: learner.loss(p, task)[0]))(params)
    assert largest_difference(found, slope) < 1e-10


def test_what_is_reported(given):
    params, task = given
    learner = jm.melu(MODEL)

    @jax.jit
    def both(params):
        adapted = learner.adapt(params, task.support)
        return learner.loss(params, task), learner.predict(adapted, task.query.x)

    (value, metrics), outputs = both(params)
    error = np.abs(outputs - task.query.y).mean()
    assert metrics["loss"] == value and float(metrics["mae"]) == pytest.approx(error)
    assert {"precision", "ndcg", "mrr"} < metrics.keys()


def test_a_model_without_embeddings_is_refused():
    with pytest.raises(ValueError, match="embeddings: the model has no entry 'tables'"):
        jm.melu(MODEL, embeddings="tables")
    with pytest.raises(ValueError, match="a dict, it has no named entries"):
        jm.melu(jm.Model(lambda key: jnp.zeros(2), lambda p, x: p))
