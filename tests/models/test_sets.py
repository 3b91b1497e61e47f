"""Networks of sets: no order, no padding, and their parts one after the other."""

import jax
import numpy as np
import pytest
from problems import double

import jaxmeta as jm
from jaxmeta.models.attention import multi_head, set_to_set

pytestmark = pytest.mark.usefixtures("x64")


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_a_set_encoder_with_heads_compares_examples():
    model = jm.models.set_encoder(2, 3, hidden=(4,), heads=2)
    params = jax.device_get(double(model.init(jax.random.key(0))))
    params = jax.tree.map(lambda a: a + 0.1, params)
    x = np.random.default_rng(0).normal(size=(5, 2))
    encode = jax.jit(lambda x, mask=None: model.apply(params, x, mask))
    close(encode(x[::-1]), encode(x))
    spoilt = np.concatenate([x[:4], np.full((1, 2), 9.0)])
    close(encode(spoilt, np.array([1, 1, 1, 1, 0])), encode(x[:4]))
    dense = lambda n, x: (
        x @ np.asarray(params[n]["kernel"]) + np.asarray(params[n]["bias"])
    )
    z = np.maximum(dense("dense1", np.asarray(x)), 0)
    see = jax.jit(set_to_set, static_argnums=2)  # against loops: see the metric family
    seen = np.asarray(see(params["set_to_set"], z, 2))
    after = np.maximum(dense("after1", np.mean(seen, axis=0)), 0)
    close(encode(x), dense("head", after))


def test_cross_attention_embeds_queries_and_keys_alike():
    model = jm.models.cross_attention(2, 3, width=4, heads=2, hidden=(5,))
    params = jax.device_get(double(model.init(jax.random.key(0))))
    params = jax.tree.map(lambda a: a + 0.1, params)
    random = np.random.default_rng(0)
    q, k, v = (random.normal(size=s) for s in ((4, 2), (6, 2), (6, 3)))
    mask = np.array([1, 1, 1, 1, 0, 0])
    dense = lambda n, x: x @ params[n]["kernel"] + params[n]["bias"][None]
    embed = lambda x: dense("dense2", np.maximum(dense("dense1", x), 0))
    read = jax.jit(multi_head, static_argnums=4)
    expected = read(params["attention"], embed(q), embed(k), v, 2, mask)
    apply = jax.jit(model.apply)
    close(apply(params, q, k, v, mask), expected)
    close(apply(params, q, k[:4], v[:4]), expected)


BAD = [
    (lambda: jm.models.set_encoder(2, 3, hidden=(9,), heads=2), "that heads divides"),
    (lambda: jm.models.cross_attention(1, 1, width=9, heads=2), "that heads divides"),
]


@pytest.mark.parametrize(("make", "sentence"), BAD)
def test_heads_must_divide_the_width(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
