"""Linear regression: descents, losses and gradients in numpy."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxmeta as jm

RANDOM = np.random.default_rng(0)

X, Y, XQ, YQ = (RANDOM.normal(size=s) for s in ((6, 4), (6, 2), (5, 4), (5, 2)))

W = RANDOM.normal(size=(4, 2))

TASK = jm.Task(jm.Batch(X, Y), jm.Batch(XQ, YQ))

MODEL = jm.Model(lambda key: {"kernel": jnp.asarray(W)}, lambda p, x: x @ p["kernel"])


def slope(w, x=X, y=Y):
    """Gradient of the mean squared error."""
    return 2 * x.T @ (x @ w - y) / y.size


def query_loss(w):
    return np.mean(np.square(XQ @ w - YQ))


def numeric(f, value, h=1e-6):
    """Gradient of a numpy function of one array by central differences."""
    out = np.zeros_like(value)
    for place in np.ndindex(*value.shape):
        nudge = np.zeros_like(value)
        nudge[place] = h
        out[place] = (f(value + nudge) - f(value - nudge)) / (2 * h)
    return out


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)


def gradient(learner, params, key=None):
    """Of the loss."""
    return jax.jit(jax.grad(lambda p: learner.loss(p, TASK, key)[0]))(params)


def descended(learner, params):
    """((value, metrics), gradient) of what training descends, where it is not the loss."""
    f = lambda p: learner.objective(p, TASK, None, 0)
    return jax.jit(jax.value_and_grad(f, has_aux=True))(params)


def adapted(learner, params, key=None):
    """To the support set, by one program."""
    return jax.jit(learner.adapt)(params, TASK.support, key)


def loss_of(learner, params):
    """What it reports, by one program."""
    return jax.jit(lambda p: learner.loss(p, TASK)[0])(params)


def start(learner):
    """First parameters, by one program."""
    return learner.init(jax.random.key(0))


OPTIONS = {"loss": jm.losses.mse, "inner_steps": 3}
