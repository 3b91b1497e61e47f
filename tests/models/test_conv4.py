"""Conv4: its sizes, and its parts one after the other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta as jm


@pytest.mark.parametrize("strided", [False, True])
def test_conv4_shapes_and_parameter_count(strided):
    """Conv4 of ProtoNet: 64 features for 28 x 28; 112,832 parameters without head."""
    encoder = jm.models.conv4(None, strided=strided)
    params = jax.eval_shape(encoder.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
    shape = lambda m: jax.eval_shape(m.apply, params, x).shape
    assert shape(encoder) == (2, 64)
    # 640 + 3 * 36,928 in convolutions with bias, 4 * 128 in batch norm
    assert sum(a.size for a in jax.tree.leaves(params)) == 640 + 3 * 36928 + 4 * 128
    head = jm.models.conv4(7, widths=(4, 5, 6, 8), strided=strided)
    params = jax.eval_shape(head.init, jax.random.key(0))
    assert shape(head) == (2, 7)
    assert params["head"]["kernel"].shape == (8, 7)


def test_conv4_refuses_images_that_pool_to_nothing():
    with pytest.raises(ValueError, match="leave nothing of 8 x 8 images"):
        jm.models.conv4(5, input_shape=(8, 8, 1))


def test_conv4_refuses_a_grid_with_a_head():
    with pytest.raises(ValueError, match="a grid has no head"):
        jm.models.conv4(5, grid=True)


IMAGES = np.random.default_rng(1).normal(size=(6, 16, 18, 2)).astype(np.float32)
SMALL = {"input_shape": (16, 18, 2), "widths": (2, 3, 4, 5)}


@pytest.mark.slow
@pytest.mark.parametrize("strided", [False, True])
def test_conv4_is_its_parts(strided):
    """In Flax, with context parameters that scale and shift the third block."""
    model = jm.models.conv4(3, context=2, strided=strided, **SMALL)
    params = model.init(jax.random.key(0))
    phi = np.float32([0.5, -1.0])

    @jax.jit
    def parts(params, x):
        stride = (2, 2) if strided else (1, 1)
        for i, width in enumerate(SMALL["widths"], start=1):
            conv = nn.Conv(width, (3, 3), stride, padding=((1, 1), (1, 1)))
            x = conv.apply({"params": params[f"conv{i}"]}, x)
            x = x - x.mean(axis=(0, 1, 2), keepdims=True)
            x = jax.nn.relu(
                x / jnp.sqrt(jnp.square(x).mean((0, 1, 2), keepdims=True) + 1e-5)
            )
            x = x if strided else nn.max_pool(x, (2, 2), (2, 2))
            if i == 3:
                film = params["film"]["layer"]
                scale, shift = jnp.split(phi @ film["kernel"] + film["bias"], 2)
                x = x * (1 + scale[None, None, None]) + shift[None, None, None]
        x = x.mean(axis=(1, 2)) if strided else jnp.reshape(x, (6, -1))
        return nn.Dense(3).apply({"params": params["head"]}, x)

    found = jax.jit(model.apply)(params | {"context": phi}, IMAGES)
    np.testing.assert_allclose(found, parts(params, IMAGES), rtol=1e-4, atol=1e-4)
