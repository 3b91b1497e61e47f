"""One problem as a task distribution."""

import jax
import numpy as np
import pytest

import jaxmeta as jm

ROWS = jm.Batch(np.arange(12.0).reshape(6, 2), np.arange(6), np.ones(6))


def test_whole_sets_are_the_same_in_every_sample():
    sampler = jm.tasks.single(ROWS, ROWS._replace(y=None))
    task = sampler.sample(jax.random.key(0))
    np.testing.assert_array_equal(task.support.x, ROWS.x)
    np.testing.assert_array_equal(task.query.mask, ROWS.mask)
    assert task.query.y is None


def test_minibatches_have_rows_once_each_and_a_small_set_whole():
    few = jax.tree.map(lambda a: a[:3], ROWS)
    sampler = jm.tasks.single(ROWS, few, batch_size=4)
    draws = jax.vmap(sampler.sample)(jax.random.split(jax.random.key(0), 200))
    assert draws.query.x.shape == (200, 3, 2)
    rows = np.asarray(draws.support.y)
    assert all(len(set(row)) == 4 for row in rows)
    np.testing.assert_array_equal(draws.support.x[..., 0], 2 * rows)  # x and y together
    often = np.bincount(rows.ravel(), minlength=6) / 200  # 4 of 6, of each draw
    assert np.abs(often - 4 / 6).max() < 0.15


def test_sets_that_do_not_fit_get_a_sentence():
    with pytest.raises(ValueError, match="validation set: x has 6 .* y has 5"):
        jm.tasks.single(ROWS, jm.Batch(ROWS.x, np.arange(5)))
