"""The recommender's network beside numpy, and numbers that have no row."""

import jax
import numpy as np
import pytest

import jaxmeta as jm

MODEL = jm.models.rater(5, 2, (3,), width=4, user=(2, 3), genres=3)


def inputs(item=(0, 4)):
    user = np.array([[0, 2], [1, 0]], np.int32)
    genres = np.array([[1, 0, 1], [0, 0, 0]], np.float32)
    return {"item": np.array(item, np.int32), "user": user, "genres": genres}


def test_it_is_embeddings_side_by_side_then_layers():
    params, x = MODEL.init(jax.random.key(0)), inputs()
    outputs, params = jax.device_get((jax.jit(MODEL.apply)(params, x), params))
    e = params["embeddings"]
    for i in range(2):
        genres = [g for g in range(3) if x["genres"][i, g]]
        mean = e["genres"][genres].mean(0) if genres else np.zeros(4)
        users = [e[f"user{k}"][x["user"][i, k]] for k in range(2)]
        h = np.concatenate([e["item"][x["item"][i]], mean, *users])
        for name in ("dense1", "head"):
            h = h @ params[name]["kernel"] + params[name]["bias"]
            h = np.maximum(h, 0) if name == "dense1" else h
        np.testing.assert_allclose(outputs[i], h, rtol=1e-5)


@pytest.mark.parametrize("item", [(0, 5), (0, -1)])
def test_an_unknown_item_is_nan(item):
    outputs = jax.jit(MODEL.apply)(MODEL.init(jax.random.key(0)), inputs(item))
    assert np.isfinite(outputs[0]).all() and np.isnan(outputs[1]).all()


def test_other_inputs_get_a_sentence():
    params = MODEL.init(jax.random.key(0))
    for wrong in (np.zeros((2, 3)), {"item": np.zeros(2)}, inputs() | {"genres": TWO}):
        with pytest.raises(ValueError, match="rater: expected inputs that are a dict"):
            MODEL.apply(params, wrong)


TWO = np.zeros((2, 2))
