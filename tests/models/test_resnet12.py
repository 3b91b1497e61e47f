"""ResNet-12: its size, and what training drops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta.models.resnet12 import drop_block

pytestmark = pytest.mark.usefixtures("x64")


close = np.testing.assert_allclose


def test_resnet12_is_the_published_size():
    """12.4 million parameters, 640 features of an 84 x 84 image."""
    model = jm.models.resnet12()
    params = jax.eval_shape(model.init, jax.random.key(0))
    count = sum(np.prod(a.shape) for a in jax.tree.leaves(params))
    assert round(count / 1e6, 1) == 12.4
    x = jax.ShapeDtypeStruct((2, 84, 84, 3), jnp.float32)
    assert jax.eval_shape(model.apply, params, x).shape == (2, 640)


def test_drop_block_drops_squares_in_training_only():
    x, drop = np.ones((20, 20, 40, 8)), jax.jit(drop_block, static_argnums=(2, 3))
    y = np.asarray(drop(jax.random.key(0), x, 0.1, 5))
    share = (y == 0).mean()
    assert 0.05 < share < 0.15
    close(y.mean(), 1.0, 1e-6)  # scaled up again
    plane = y[:, :, 0, 0] == 0
    row, column = np.argwhere((y == 0).any(axis=(0, 1)))[0]
    plane = y[:, :, row, column] == 0
    assert plane.sum() >= 25  # whole squares

    model = jm.models.resnet12(
        input_shape=(16, 16, 1), widths=(2, 2, 2, 2), drop_rate=0.5
    )
    learner = jm.with_noise(lambda m: jm.protonet(m, ways=2), model)
    params = learner.init(jax.random.key(0))
    images = np.random.default_rng(1).normal(size=(4, 16, 16, 1))
    batch = jm.Batch(images, np.array([0, 1, 0, 1]))
    task = jm.Task(batch, batch)
    train = jax.jit(lambda seed, step: learner.objective(
        params, task, jax.random.key(seed), step
    )[0])  # fmt: skip
    assert train(0, 40_000) != train(1, 40_000)
    close(train(0, 0), train(1, 0), 1e-6)  # the rate grows from zero
    close(train(0, 0), jax.jit(learner.loss)(params, task)[0], 1e-5)


BAD = [
    (lambda: jm.models.resnet12(input_shape=(8, 8, 1)), "at least 16 x 16, got"),
    (lambda: jm.models.resnet12(drop_rate=1.0), r"drop_rate: .*\[0, 1\), got 1.0"),
]


@pytest.mark.parametrize(("make", "sentence"), BAD)
def test_bad_arguments_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
