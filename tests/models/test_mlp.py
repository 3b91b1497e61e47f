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
    x = np.random.default_rng(1).normal(size=(7, 2, 3)).astype(np.float32)
    flat, theirs = np.reshape(x, (7, 6)), jax.jit(Linen().apply)
    model = jm.models.mlp((2, 3), 3, (4, 5), activation=jnp.tanh)
    params = model.init(jax.random.key(0))
    np.testing.assert_allclose(
        jax.jit(model.apply)(params, x), theirs({"params": params}, flat), rtol=1e-6
    )
    model = jm.models.mlp(6, 3, (4, 5), context=2, activation=jnp.tanh)
    params = jax.device_get(model.init(jax.random.key(0)))
    assert not params["context"].any()
    phi = params.pop("context") + np.float32([0.5, -1.0])
    wide = np.concatenate([flat, np.tile(phi[None], (7, 1))], axis=1)
    np.testing.assert_allclose(
        jax.jit(model.apply)(params | {"context": phi}, flat),
        theirs({"params": params}, wide),
        rtol=1e-6,
    )


def test_parameters_of_half_precision_make_outputs_of_half_precision():
    model = jm.models.mlp(2, 3)
    half = jax.eval_shape(model.init, jax.random.key(0))
    half = jax.tree.map(lambda a: a.update(dtype=jnp.bfloat16), half)

    def outputs(dtype):
        x = jax.ShapeDtypeStruct((4, 2), dtype)
        return jax.eval_shape(model.apply, half, x).dtype

    assert outputs(jnp.bfloat16) == jnp.bfloat16 == outputs(jnp.int32)
    assert outputs(jnp.float32) == jnp.float32
