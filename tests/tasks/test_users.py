"""Users as tasks: each once, some of them, what is refused."""

import jax
import numpy as np
import pytest

import jaxmeta as jm

COUNTS = {"ann": 3, "bob": 5, "eve": 4}
ITEM = np.arange(12, dtype=np.int32)
DATA = jm.data.from_arrays(
    {"item": ITEM},
    np.repeat(list(COUNTS), list(COUNTS.values())),
    targets=10.0 * ITEM[:, None],
)


@pytest.fixture(scope="module")
def sampler():
    return jm.tasks.users(DATA, queries=2, items=20)


def test_everyone_is_asked_once(sampler):
    tasks = jax.device_get(sampler.everyone(jax.random.key(0)))
    starts = np.cumsum([0, *COUNTS.values()])
    for i, (first, count) in enumerate(zip(starts, COUNTS.values(), strict=False)):
        known = tasks.support.x["item"][i][tasks.support.mask[i] > 0]
        both = np.concatenate([known, tasks.query.x["item"][i]])
        assert sorted(both) == list(range(first, first + count))
        assert (tasks.query.y[i, :, 0] == 10 * tasks.query.x["item"][i]).all()
    again = sampler.everyone(jax.random.key(1))
    assert (again.query.x["item"] != tasks.query.x["item"]).any()


def test_some_users_are_other_numbers_for_the_same_program(sampler):
    some = sampler.select([2, 0, 2])
    assert jax.tree.structure(some) == jax.tree.structure(sampler)
    (known,) = some.everything()
    assert known.x["item"].tolist() == [8, 9, 10, 11, 0, 1, 2, 8, 9, 10, 11]
    tasks = some.everyone(jax.random.key(0))
    assert (np.asarray(tasks.query.x["item"])[1] <= 2).all()
    assert (np.asarray(tasks.query.x["item"])[[0, 2]] >= 8).all() and some.items == 20


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: jm.tasks.users(DATA, queries=3), r"1 \+ 3 .* class 'ann' .* has 3"),
        (lambda: jm.tasks.users(DATA, 2, items=5), r"items: expected .* >= 12, got 5"),
        (
            lambda: jm.tasks.users(
                jm.data.from_arrays(np.zeros((2, 1)), ["a", "b"], targets=np.zeros(2))
            ),
            "has no items; expected inputs that are a dict",
        ),
        (
            lambda: jm.tasks.users(jm.data.from_arrays({"item": ITEM}, ITEM % 2)),
            "has no targets",
        ),
        (
            lambda: jm.tasks.users(DATA, 2).select([3]),
            r"chosen: expected numbers of users in 0\.\.2",
        ),
        (lambda: jm.tasks.users(DATA, 2).select([]), "at least one"),
    ],
)
def test_what_makes_no_tasks_is_said(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        wrong()
