"""A network of any make meta-learns, and an adapter adds nothing to it."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from flavours import normal
from flax import nnx

import jaxmeta as jm


class LinenNet(nn.Module):
    """Dropout and running statistics, to be in the way."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dense(2)(nn.Dropout(0.0, deterministic=not train)(x))


class NNXNet(nnx.Module):
    """Likewise."""

    def __init__(self, rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.last = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.norm(self.first(x)))


MODELS = {
    "linen": lambda: jm.models.from_linen(LinenNet(), (3,), train=True),
    "nnx": lambda: jm.models.from_nnx(lambda rngs: NNXNet(rngs)),
    "functions": lambda: jm.models.from_functions(
        lambda key: jax.random.normal(key, (3, 2)), lambda w, x: x @ w
    ),
    "pair": lambda: jm.Model(
        lambda key: jax.random.normal(key, (3, 2)), lambda w, x: x @ w
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_any_network_meta_learns(name):
    """init and apply are pure, and MAML trains through them under jit and vmap."""
    model = MODELS[name]()
    params = model.init(jax.random.key(0))
    x = np.float32(normal(1, 5, 3))
    assert model.apply(params, x).shape == (5, 2)
    np.testing.assert_array_equal(model.apply(params, x), model.apply(params, x))
    learner = jm.maml(model, inner_lr=0.1, loss=jm.losses.mse)
    batch = jm.Batch(np.stack([x, 2 * x]), np.ones((2, 5, 2), np.float32))
    (_, _), gradient = jax.jit(jm.meta_gradient(learner))(params, jm.Task(batch, batch))
    gradient = jax.tree.leaves(jax.device_get(gradient))
    assert all(np.isfinite(g).all() for g in gradient)
    assert any((g != 0).any() for g in gradient)


def test_linen_adapter_is_the_modules_own_apply():
    module, x = nn.Dense(2), np.float32(normal(1, 5, 3))
    model = jm.models.from_linen(module, (3,))
    params = model.init(jax.random.key(0))
    np.testing.assert_array_equal(
        model.apply(params, x), module.apply({"params": params}, x)
    )


def test_nnx_adapter_is_the_modules_own_call():
    x = np.float32(normal(1, 5, 3))
    model = jm.models.from_nnx(lambda rngs: NNXNet(rngs))
    np.testing.assert_allclose(
        model.apply(model.init(jax.random.key(3)), x),
        NNXNet(nnx.Rngs(jax.random.key(3)))(x),
        rtol=1e-6,
    )


def test_functions_must_be_functions():
    with pytest.raises(ValueError, match="apply: expected a function, got 3"):
        jm.models.from_functions(lambda key: 0, 3)
