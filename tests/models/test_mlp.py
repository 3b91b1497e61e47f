"""The multi-layer perceptron against Flax's layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxmeta as jm


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(nn.Dense(4, name="dense1")(x))
        x = jnp.tanh(nn.Dense(5, name="dense2")(x))
        return nn.Dense(3, name="head")(x)


def test_mlp_is_flaxs_layers():
    """Context parameters are the last columns of the inputs."""
    x = jax.random.normal(jax.random.key(1), (7, 2, 3))
    flat, module = jnp.reshape(x, (7, 6)), Linen()
    model = jm.models.mlp((2, 3), 3, (4, 5), activation=jnp.tanh)
    params = model.init(jax.random.key(0))
    np.testing.assert_allclose(
        model.apply(params, x), module.apply({"params": params}, flat), rtol=1e-6
    )
    model = jm.models.mlp(6, 3, (4, 5), context=2, activation=jnp.tanh)
    params = model.init(jax.random.key(0))
    assert not params["context"].any()
    phi = params.pop("context") + jnp.array([0.5, -1.0])
    wide = jnp.concatenate([flat, jnp.tile(phi[None], (7, 1))], axis=1)
    np.testing.assert_allclose(
        model.apply(params | {"context": phi}, flat),
        module.apply({"params": params}, wide),
        rtol=1e-6,
    )


def test_parameters_of_half_precision_make_outputs_of_half_precision():
    model = jm.models.mlp(2, 3)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), model.init(jax.random.key(0)))
    assert model.apply(half, jnp.ones((4, 2), jnp.bfloat16)).dtype == jnp.bfloat16
    assert model.apply(half, jnp.ones((4, 2), jnp.int32)).dtype == jnp.bfloat16
    assert model.apply(half, jnp.ones((4, 2))).dtype == jnp.float32
