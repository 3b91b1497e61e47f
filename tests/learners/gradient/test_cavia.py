"""CAVIA: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_task import OPTIONS, RANDOM, TASK, XQ, YQ, W, X, Y, close, gradient, numeric

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_cavia():
    """Outputs x W + phi V: the context moves the outputs through V alone."""
    v = RANDOM.normal(size=(3, 2))
    model = jm.Model(
        lambda key: {
            "kernel": jnp.asarray(W),
            "v": jnp.asarray(v),
            "context": jnp.ones(3),
        },
        lambda p, x: x @ p["kernel"] + (p["context"] @ p["v"])[None],
    )

    def adapted(w, v):
        phi = np.zeros(3)  # whatever the model starts with
        for _ in range(3):
            errors = X @ w + phi @ v - Y
            phi = phi - 0.5 * (2 / Y.size) * errors.sum(0) @ v.T
        return phi

    def loss(w, v):
        return np.mean(np.square(XQ @ w + adapted(w, v) @ v - YQ))

    learner = jm.cavia(model, inner_lr=0.5, **OPTIONS)
    params = learner.init(jax.random.key(0))
    assert params.keys() == {"kernel", "v"}
    found = jax.jit(learner.adapt)(params, TASK.support)
    close(found["context"], adapted(W, v))
    found = gradient(learner, params)
    close(found["kernel"], numeric(lambda w: loss(w, v), W))
    close(found["v"], numeric(lambda v: loss(W, v), v))


def test_film_of_zeros_changes_nothing_and_others_do():
    plain, film = jm.models.conv4(3, widths=4), jm.models.conv4(3, widths=4, context=2)
    params = film.init(jax.random.key(0))
    rest = {k: v for k, v in params.items() if k not in ("context", "film")}
    x = RANDOM.normal(size=(3, 28, 28, 1))
    moved = params | {"context": jnp.array([1.0, -1.0])}
    apply = jax.jit(film.apply)
    zeros, others = (np.asarray(apply(p, x)) for p in (params, moved))
    expected = np.asarray(jax.jit(plain.apply)(rest, x))
    np.testing.assert_array_equal(zeros, expected)
    assert np.abs(others - expected).max() > 1e-3
