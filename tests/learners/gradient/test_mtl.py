"""MTL: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_task import OPTIONS, RANDOM, XQ, YQ, X, Y, close, gradient, numeric, slope

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_mtl():
    body, head = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(3, 2))
    bias = RANDOM.normal(size=3)
    frozen = {"body": {"kernel": body, "bias": bias}, "head": np.zeros((3, 2))}
    model = jm.Model(
        lambda key: jax.tree.map(jnp.asarray, frozen) | {"head": jnp.asarray(head)},
        lambda p, x: (x @ p["body"]["kernel"] + p["body"]["bias"][None]) @ p["head"],
    )
    learner = jm.mtl(
        model, frozen=jax.tree.map(jnp.asarray, frozen), inner_lr=0.1, **OPTIONS
    )
    scale, shift = RANDOM.uniform(0.5, 1.5, (1, 3)), RANDOM.normal(size=3)

    def loss(scale, shift):
        z, zq = (x @ (body * scale) + bias + shift for x in (X, XQ))
        w = head
        for _ in range(3):
            w = w - 0.1 * slope(w, z, Y)
        return np.mean(np.square(zq @ w - YQ))

    params = learner.init(jax.random.key(0))
    assert params.scale[0].shape == (1, 3) and params.shift[0].shape == (3,)
    params = params._replace(scale=[jnp.asarray(scale)], shift=[jnp.asarray(shift)])
    found = gradient(learner, params)
    close(found.scale[0], numeric(lambda s: loss(s, shift), scale))
    close(found.shift[0], numeric(lambda s: loss(scale, s), shift))
    # a network pre-trained on another number of classes
    wide = jax.tree.map(jnp.asarray, frozen | {"head": np.zeros((3, 64))})
    jm.mtl(model, frozen=wide)
    with pytest.raises(ValueError, match="frozen: expected parameters of shapes"):
        jm.mtl(model, frozen={"body": jnp.zeros(3)})
