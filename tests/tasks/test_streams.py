"""Streams of classes: who is in which set, and in what order."""

import jax
import numpy as np
import pytest

import jaxmeta as jm

# an example says its class, and which of the class's examples it is
LABELS = np.repeat(np.arange(6), [4, 5, 6, 4, 5, 6])
PLACES = np.concatenate([np.arange(n) for n in (4, 5, 6, 4, 5, 6)])
DATA = jm.data.from_arrays(np.stack([LABELS, PLACES], 1).astype(np.float32), LABELS)
TWO = jm.tasks.streams(DATA, 2, 2, 2, remember=7, apart=True)
ONE = jm.tasks.streams(DATA, 1, 3, remember=40)


def sampled(sampler, n=50):
    keys = jax.random.split(jax.random.key(0), n)
    return jax.device_get(jax.jit(jax.vmap(sampler.sample))(keys))


def test_a_stream_is_class_after_class_and_then_all_are_asked():
    task = sampled(TWO)
    assert TWO.ways == 6
    for x, y in ((task.support.x, task.support.y), (task.query.x, task.query.y)):
        np.testing.assert_array_equal(x[..., 0], y)
    y, asked = task.support.y, task.query.y
    assert np.all(y[:, 0] == y[:, 1]) and np.all(y[:, 2] == y[:, 3])
    assert np.all(y[:, 0] != y[:, 2]) and set(np.ravel(y)) == {3, 4, 5}
    np.testing.assert_array_equal(asked[:, :4], y)
    assert set(np.ravel(asked[:, 4:])) == {0, 1, 2}
    here, there = task.support.x[..., 1], task.query.x[:, :4, 1]
    assert not any(set(here[i, p]) & set(there[i, p])
                   for i in range(50) for p in (slice(2), slice(2, 4)))  # fmt: skip


def test_without_queries_the_stream_itself_is_asked():
    task = sampled(ONE)
    np.testing.assert_array_equal(task.query.x[:, :3], task.support.x)
    assert set(np.ravel(task.query.y[:, 3:])) == set(range(6))
    assert (
        task.query.x[:, 3:, 1] < np.array([4, 5, 6, 4, 5, 6])[task.query.y[:, 3:]]
    ).all()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"length": 0}, r"length: expected a whole number in 1\.\.6, got 0"),
        ({"length": 4, "apart": True}, r"length: expected .* in 1\.\.3, got 4"),
        ({"shots": 4, "queries": 1}, "class '0' of .* has 4"),
        ({"remember": 0}, "remember: expected a whole number >= 1, got 0"),
    ],
)
def test_a_stream_that_can_not_be_gets_a_sentence(how, sentence):
    with pytest.raises(ValueError, match=sentence):
        jm.tasks.streams(DATA, **{"shots": 2, **how})
