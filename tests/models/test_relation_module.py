"""The relation module: its parts one after the other."""

import jax
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta.models import layers


@pytest.mark.parametrize(
    ("shape", "left"), [((7, 5, 3), 1), ((2, 3, 3), 1), ((3, 1, 3), 3)]
)
def test_relation_module_is_its_parts(shape, left):
    """Maps are pooled while there is more than a row and a column of them."""
    model = jm.models.relation_module(shape, widths=4, hidden=5)
    params = jax.device_get(model.init(jax.random.key(0)))
    assert params["dense"]["kernel"].shape == (4 * left, 5)
    random = np.random.default_rng(1)
    images = random.normal(size=(6, *shape)).astype(np.float32)

    @jax.jit
    def maps(x):
        for i in (1, 2):
            norm = params[f"norm{i}"]
            x = layers.conv3x3(x, params[f"conv{i}"]["kernel"], method="lax")
            x = jax.nn.relu(layers.batch_norm(x, norm["scale"], norm["offset"]))
            x = layers.max_pool2x2(x) if min(x.shape[:2]) > 1 else x
        return x

    x = np.asarray(maps(images.transpose(1, 2, 0, 3)))
    x = x.transpose(2, 0, 1, 3).reshape(6, -1)
    dense = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"][None]
    expected = dense("head", np.maximum(dense("dense", x), 0))
    found = jax.jit(model.apply)(params, images)
    assert found.shape == (6, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
