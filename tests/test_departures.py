"""What docstrings say of the authors' code in numbers: how it and ours are converted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")

WAYS, SHOTS, SIZE = 3, 2, 4


def _linear(params, x, mask=None):
    return x @ params["w"] + params["b"][None, :]


def _init(key):
    return {"w": jax.random.normal(key, (SIZE, WAYS)), "b": jnp.arange(1.0, WAYS + 1)}


LINEAR = jm.Model(_init, _linear)


@pytest.fixture
def support():
    x = np.random.default_rng(0).normal(size=(WAYS * SHOTS, SIZE))
    return jm.Batch(jnp.asarray(x), jnp.arange(WAYS * SHOTS) % WAYS)


def _summed_gradients(x, y, w, b):
    """Of the cross-entropy, over the examples: its dw and db."""
    scores = np.exp(x @ w + b)
    errors = scores / scores.sum(1, keepdims=True) - np.eye(WAYS)[y]
    return x.T @ errors, errors.sum(0)


def test_maml_authors_step_is_ways_times_ours(support):
    params, alpha = LINEAR.init(jax.random.key(1)), 0.1
    x, y, w, b = map(np.asarray, (support.x, support.y, params["w"], params["b"]))
    dw, _ = _summed_gradients(x, y, w, b)
    ours = jm.maml(LINEAR, inner_lr=WAYS * alpha).adapt(params, support)
    np.testing.assert_allclose(ours["w"], w - alpha * dw / SHOTS, rtol=1e-12)


def test_tnet_leaves_the_bias_where_it_is(support):
    params = jm.tnet(LINEAR).init(jax.random.key(1))
    t = np.random.default_rng(2).normal(size=(WAYS, WAYS))
    theta = {name: np.asarray(a) for name, a in params.theta.items()}
    learner = jm.tnet(LINEAR, inner_steps=0)
    adapted = learner.adapt(params._replace(t=[jnp.asarray(t)]), support)
    outputs = learner.predict(adapted, support.x)
    x = np.asarray(support.x)
    np.testing.assert_allclose(outputs, x @ theta["w"] @ t + theta["b"], rtol=1e-12)


def _features(key):
    return {}


IDENTITY = jm.Model(_features, lambda params, x, mask=None: x)


def test_r2d2_authors_lambda_is_n_times_as_strong(support):
    x, y = np.asarray(support.x), np.eye(WAYS)[np.asarray(support.y)]
    n, penalty = len(x), 0.7
    x, y = x / np.sqrt(n), y / np.sqrt(n)
    theirs = np.linalg.solve(x.T @ x + penalty * np.eye(SIZE), x.T @ y)
    learner = jm.r2d2(IDENTITY, ways=WAYS, penalty=n * penalty)
    ours = learner.adapt(learner.init(jax.random.key(0)), support)
    np.testing.assert_allclose(ours.w, theirs, rtol=1e-6)  # log lambda is float32


def test_metaoptnet_authors_ridge_is_twice_ours(support):
    x, y = np.asarray(support.x), np.eye(WAYS)[np.asarray(support.y)]
    # their program: least 1/2 z' (K + 50 I) z - 2 y' z, outputs z' X f(x)
    theirs = x.T @ np.linalg.solve(x @ x.T + 50 * np.eye(len(x)), 2 * y)
    learner = jm.metaoptnet(IDENTITY, ways=WAYS, head="ridge")
    ours = learner.adapt(learner.init(jax.random.key(0)), support)
    np.testing.assert_allclose(2 * ours.w, theirs, rtol=1e-12)
