"""Item means and users' biases in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")

RANDOM = np.random.default_rng(0)
ITEM, RATING = RANDOM.integers(0, 5, 40), RANDOM.uniform(1, 5, 40)


def test_means_are_shrunk_to_the_overall_mean():
    found = jm.item_means(ITEM, RATING[:, None], 6, shrinkage=5).mean
    overall = RATING.mean()
    for i in range(5):
        own = RATING[i == ITEM]
        wanted = (own.sum() + 5 * overall) / (len(own) + 5)
        assert abs(float(found[i]) - wanted) < 1e-12
    assert abs(float(found[5]) - overall) < 1e-12  # of an item that nobody rated
    plain = jm.item_means(ITEM, RATING, 6, shrinkage=0).mean
    assert abs(float(plain[2]) - RATING[ITEM == 2].mean()) < 1e-12


def test_means_of_what_users_leave_are_the_least_squares():
    """Minimum of the squared errors and both penalties, by one linear system."""
    user = np.arange(40) % 7
    found = jm.item_means(
        ITEM, RATING, 5, user=user, shrinkage=5, user_shrinkage=3
    ).mean
    a = np.concatenate([np.eye(5)[ITEM], np.eye(7)[user]], axis=1)
    system = a.T @ a + np.diag([5.0] * 5 + [3.0] * 7)
    wanted = np.linalg.solve(system, a.T @ (RATING - RATING.mean()))[:5]
    np.testing.assert_allclose(found, RATING.mean() + wanted, atol=1e-8)


@pytest.mark.parametrize("shrinkage", [3.0, 0.0, None])
def test_a_user_is_their_shrunk_mean_residual(shrinkage):
    params = jm.item_means(ITEM, RATING, 5)
    learner = jm.item_mean(items=5, user_shrinkage=shrinkage)
    x, y = {"item": jnp.array([4, 0, 4, 2])}, jnp.array([[5.0], [1.0], [4.0], [2.0]])
    support = jm.Batch(x, y, jnp.array([1.0, 1.0, 1.0, 0.0]))
    adapted = learner.adapt(params, support)
    m = np.asarray(params.mean)
    bias = (5 - m[4] + 1 - m[0] + 4 - m[4]) / (3 + (shrinkage or 0))
    bias = 0 if shrinkage is None else bias
    found = learner.predict(adapted, {"item": jnp.array([1, 3])})
    np.testing.assert_allclose(found[:, 0], m[[1, 3]] + bias, rtol=1e-12)


def test_a_user_bias_is_the_ridge_of_one_feature():
    """R2D2 with the feature 1 and lambda 3, of what the item means leave."""
    params = jm.item_means(ITEM, RATING, 5)
    one = jm.Model(lambda key: (), lambda p, x: jnp.ones((len(x["item"]), 1)))
    ridge = jm.r2d2(one, ways=None, penalty=3.0)
    x, y = {"item": jnp.array([1, 2, 3])}, jnp.array([[5.0], [3.0], [4.0]])
    left = jm.Batch(x, y - params.mean[x["item"]][:, None])
    w = ridge.adapt(ridge.init(jax.random.key(0)), left).w
    bias = jm.item_mean(items=5).adapt(params, jm.Batch(x, y)).bias
    np.testing.assert_allclose(w[0, 0], bias, rtol=1e-6)  # log lambda is float32


def test_an_unknown_item_is_nan():
    learner = jm.item_mean(items=5)
    adapted = learner.adapt(
        jm.item_means(ITEM, RATING, 5),
        jm.Batch({"item": jnp.array([1])}, jnp.ones((1, 1))),
    )
    found = learner.predict(adapted, {"item": jnp.array([4, 5, -1])})
    assert np.isnan(found[:, 0]).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("item", "rating", "items", "sentence"),
    [
        ([0, 1], [1.0], 2, "item, rating: expected numbers of items"),
        ([0, -1], [1.0, 2.0], 2, "item: expected whole numbers from 0"),
        ([0.5, 1.0], [1.0, 2.0], 2, "item: expected whole numbers from 0"),
        ([0, 7], [1.0, 2.0], 2, "items: expected a whole number >= 8, got 2"),
    ],
)
def test_what_has_no_means_is_said(item, rating, items, sentence):
    with pytest.raises(ValueError, match=sentence):
        jm.item_means(np.array(item), np.array(rating), items)


def test_users_are_numbers_of_the_ratings():
    for user, sentence in (
        (ITEM[:3], "a number for each rating"),
        (ITEM - 9, "from 0"),
    ):
        with pytest.raises(ValueError, match=f"user: expected .*{sentence}"):
            jm.item_means(ITEM, RATING, 5, user=user)
