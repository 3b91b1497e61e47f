"""WarpGrad's objective and Leap's gradient in numpy, on a network of two matrices."""

import itertools

import jax
import numpy as np
import optax
import pytest

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")
RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(6, 4)), RANDOM.normal(size=(6, 2))
XQ, YQ = RANDOM.normal(size=(5, 4)), RANDOM.normal(size=(5, 2))
THETA, PHI = 0.3 * RANDOM.normal(size=(4, 3)), 0.3 * RANDOM.normal(size=(3, 2))
TASK = jm.Task(jm.Batch(X, Y), jm.Batch(XQ, YQ))
ALPHA, STEPS = 0.2, 3
PARAMS = {"body": {"w": THETA}, "warp": {"w": PHI}}
MODEL = jm.Model(lambda key: PARAMS, lambda p, x: x @ p["body"]["w"] @ p["warp"]["w"])
OPTIONS = {"inner_lr": ALPHA, "inner_steps": STEPS, "loss": jm.losses.mse}


def step(theta, phi):
    error = X @ theta @ phi - Y
    return theta - ALPHA * 2 / error.size * X.T @ error @ phi.T


def query(theta, phi):
    return np.mean(np.square(XQ @ theta @ phi - YQ))


def way():
    path = [THETA]
    for _ in range(STEPS):
        path.append(step(path[-1], PHI))
    return path


def numeric(f, value, h=1e-6):
    out = np.zeros_like(value)
    for place in np.ndindex(*value.shape):
        nudge = np.zeros_like(value)
        nudge[place] = h
        out[place] = (f(value + nudge) - f(value - nudge)) / (2 * h)
    return out


def test_the_objective_goes_through_single_steps_of_a_fixed_way():
    learner = jm.warpgrad(MODEL, warps=("warp",), start_weight=0.5, **OPTIONS)
    f = lambda p: learner.objective(p, TASK, None, 0)
    (value, metrics), found = jax.jit(jax.value_and_grad(f, has_aux=True))(PARAMS)
    path = way()

    def warped(phi):  # theta_k are those of PHI, whatever phi
        return np.mean([query(step(theta, phi), phi) for theta in path[:-1]])

    np.testing.assert_allclose(value, warped(PHI), rtol=1e-10)
    np.testing.assert_allclose(metrics["loss"], query(path[-1], PHI), rtol=1e-10)
    np.testing.assert_allclose(found["warp"]["w"], numeric(warped, PHI), rtol=1e-6)
    back = [a - b for a, b in itertools.pairwise(path)]
    leap = sum(a / np.sqrt(np.square(a).sum()) for a in back)
    np.testing.assert_allclose(found["body"]["w"], 0.5 * leap, rtol=1e-8)


def test_the_loss_is_that_of_all_steps():
    learner = jm.warpgrad(MODEL, warps=("warp",), **OPTIONS)
    loss, _ = jax.jit(learner.loss)(PARAMS, TASK)
    np.testing.assert_allclose(loss, query(way()[-1], PHI), rtol=1e-10)
    adapted = jax.jit(learner.adapt)(PARAMS, TASK.support)
    np.testing.assert_allclose(adapted["body"]["w"], way()[-1], rtol=1e-10)
    np.testing.assert_array_equal(adapted["warp"]["w"], PHI)


def test_leap_shortens_the_way():
    """On one task, with the warps kept."""
    learner = jm.warpgrad(MODEL, warps=("warp",), **OPTIONS)
    optimizer = optax.multi_transform(
        {"move": optax.sgd(0.05), "keep": optax.set_to_zero()},
        {"body": "move", "warp": "keep"},
    )
    gradient = jax.grad(lambda p: learner.objective(p, TASK, None, 0)[0])

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(20):
        params, state = step(params, state)
    adapt = jax.jit(learner.adapt)

    def length(params):
        end = adapt(params, TASK.support)["body"]["w"]
        return np.linalg.norm(np.asarray(end) - np.asarray(params["body"]["w"]))

    assert length(params) < 0.5 * length(PARAMS)


def test_every_second_layer_warps_and_the_head_adapts():
    learner = jm.warpgrad(jm.models.mlp(4, 2, (5, 5, 5)), **OPTIONS)
    params = learner.init(jax.random.key(0))
    adapted = jax.jit(learner.adapt)(params, TASK.support)
    same = {
        n: np.array_equal(adapted[n]["kernel"], params[n]["kernel"]) for n in params
    }
    assert same == {"dense1": True, "dense2": False, "dense3": True, "head": False}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"warps": ("nobody",)}, "warps: the model has no layer 'nobody'"),
        ({"warps": ("body", "warp")}, "warps: all layers are warp-layers"),
        ({"start_weight": -1.0}, "start_weight: .*> 0"),
        ({"inner_steps": 0}, "inner_steps: .*>= 1"),
        ({"adjoint": jm.FirstOrder()}, "adjoint: warpgrad learns"),
    ],
)
def test_bad_arguments_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        jm.warpgrad(MODEL, **(OPTIONS | {"warps": ("warp",)} | wrong))
