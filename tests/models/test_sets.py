"""Networks of sets: no order, no padding, and their parts one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta.models.attention import multi_head, set_to_set

pytestmark = pytest.mark.usefixtures("x64")


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_a_set_encoder_with_heads_compares_examples():
    model = jm.models.set_encoder(2, 3, hidden=(4,), heads=2)
    params = jax.tree.map(jnp.float64, model.init(jax.random.key(0)))
    params = jax.tree.map(lambda a: a + 0.1, params)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    encode = lambda x, mask=None: model.apply(params, x, mask)
    close(encode(x[::-1]), encode(x))
    close(encode(x.at[4].set(9.0), jnp.array([1, 1, 1, 1, 0])), encode(x[:4]))
    dense = lambda n, x: (
        x @ np.asarray(params[n]["kernel"]) + np.asarray(params[n]["bias"])
    )
    z = np.maximum(dense("dense1", np.asarray(x)), 0)
    seen = set_to_set(
        params["set_to_set"], z, 2
    )  # against loops: see the metric family
    after = np.maximum(dense("after1", np.mean(seen, axis=0)), 0)
    close(encode(x), dense("head", after))


def test_cross_attention_embeds_queries_and_keys_alike():
    model = jm.models.cross_attention(2, 3, width=4, heads=2, hidden=(5,))
    params = jax.tree.map(jnp.float64, model.init(jax.random.key(0)))
    params = jax.tree.map(lambda a: a + 0.1, params)
    random = np.random.default_rng(0)
    q, k, v = (jnp.asarray(random.normal(size=s)) for s in ((4, 2), (6, 2), (6, 3)))
    mask = jnp.array([1, 1, 1, 1, 0, 0])
    dense = lambda n, x: x @ params[n]["kernel"] + params[n]["bias"][None]
    embed = lambda x: dense("dense2", jnp.maximum(dense("dense1", x), 0))
    expected = multi_head(params["attention"], embed(q), embed(k), v, 2, mask)
    close(model.apply(params, q, k, v, mask), expected)
    close(model.apply(params, q, k[:4], v[:4]), expected)


BAD = [
    (lambda: jm.models.set_encoder(2, 3, hidden=(9,), heads=2), "that heads divides"),
    (lambda: jm.models.cross_attention(1, 1, width=9, heads=2), "that heads divides"),
]


@pytest.mark.parametrize(("make", "sentence"), BAD)
def test_heads_must_divide_the_width(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
