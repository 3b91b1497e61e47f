"""Pairs of domains: whose labels are where, and which examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import many_tasks, one_task

import jaxmeta as jm

LABELS = np.repeat([*"abc"], [4, 5, 6])
HERE = np.stack([np.arange(15.0), np.zeros(15)], axis=1)  # example, domain
THERE = np.stack([np.arange(20.0), np.ones(20)], axis=1)
SOURCE = jm.data.from_arrays(HERE, LABELS, name="here")
TARGET = jm.data.from_arrays(THERE, np.repeat([*"cab"], [9, 6, 5]), name="there")


def test_target_labels_are_nowhere_in_the_support_set():
    sampler = jm.tasks.domains(SOURCE, TARGET, sources=3, targets=8, queries=5)
    assert sampler.ways == 3
    tasks = jax.device_get(many_tasks(sampler, jax.random.key(0), 50))
    seen = set()
    for x, y, xq, yq in zip(*jax.tree.leaves(tasks), strict=True):
        domain = x[:, 1]
        assert domain.tolist() == [0] * 3 + [1] * 8 and (xq[:, 1] == 1).all()
        assert (y[3:] == -1).all() and sorted(y[:3]) == [0, 1, 2]  # one of each
        assert np.array_equal([*"abc"], np.sort(LABELS[x[:3, 0].astype(int)]))
        drawn = np.concatenate([x[3:, 0], xq[:, 0]])
        assert len(set(drawn)) == 13  # no example twice
        # by name, not by number: "c" comes first there
        truth = np.asarray(TARGET.classes)[yq]
        assert (truth == np.repeat([*"abc"], [6, 5, 9])[order(xq)]).all()
        seen |= set(xq[:, 0])
    assert seen == set(range(20))


def order(x):
    """Places in the data set of the examples that say their number."""
    return [TARGET.x[:, 0].tolist().index(number) for number in x[:, 0]]


def test_what_is_not_said_is_everything_that_is_left():
    task = one_task(jm.tasks.domains(SOURCE, TARGET), jax.random.key(0))
    assert sorted(task.support.x[:15, 0].tolist()) == list(range(15))
    assert len(task.support.x) == 15 + 10 and len(task.query.x) == 10
    task = one_task(jm.tasks.domains(SOURCE, TARGET, queries=3), jax.random.key(0))
    assert len(task.support.x) == 15 + 17 and len(task.query.x) == 3
    task = one_task(jm.tasks.rotated(SOURCE, sources=4), jax.random.key(0))
    assert len(task.support.x) == 4 + 6 and len(task.query.x) == 5


@pytest.mark.parametrize("make", [jm.tasks.rotated, jm.tasks.shifted])
def test_a_pair_is_one_data_set_and_a_change_of_its_own(make):
    points = np.random.default_rng(0).normal(size=(15, 2)).astype(np.float32)
    data = jm.data.from_arrays(points, LABELS)
    tasks = jax.device_get(many_tasks(make(data, sources=5), jax.random.key(0), 20))
    maps = []
    for x, y, xq, _ in zip(*jax.tree.leaves(tasks), strict=True):
        number = [np.abs(points - row).sum(1).argmin() for row in x[:5]]
        np.testing.assert_array_equal(x[:5], points[number])
        np.testing.assert_array_equal(data.counts.cumsum().searchsorted(
            number, side="right"), y[:5])  # fmt: skip
        left = np.delete(points, number, axis=0)
        moved = np.concatenate([x[5:], xq])
        # one affine map takes what is left to the target, up to order
        maps.append(moved.mean(0) - left.mean(0))
        spread = [np.linalg.svd(a - a.mean(0))[1] for a in (left, moved)]
        if make is jm.tasks.rotated:
            np.testing.assert_allclose(*spread, rtol=1e-4)
        else:
            std = [a.std(0) for a in (left, moved)]
            assert (np.abs(np.log(std[1] / std[0])) < 0.5001).all()
    assert np.std(maps, axis=0).min() > 0.05


def test_images_turn_counterclockwise():
    images = np.random.default_rng(0).random((6, 5, 5, 1), np.float32)
    data = jm.data.from_arrays(images, [*"aaabbb"])
    task = jax.device_get(one_task(jm.tasks.rotated(data, (90, 90)), jax.random.key(0)))
    moved = [np.rot90(image, -1) for image in (*task.support.x[2:], *task.query.x)]
    whole = np.stack([*task.support.x[:2], *moved])
    rank = lambda a: a[np.argsort(a.sum((1, 2, 3)))]
    np.testing.assert_allclose(rank(whole), rank(images), atol=1e-4)


def test_no_turn_and_no_shift_change_nothing():
    same = jm.tasks.rotated(SOURCE, (0, 0)), jm.tasks.shifted(SOURCE, 0.0, 0.0)
    for sampler in same:
        x = jnp.concatenate([b.x for b in one_task(sampler, jax.random.key(1))])
        np.testing.assert_allclose(np.sort(x[:, 0]), np.arange(15), atol=1e-5)


def test_bytes_are_images():
    whole = jm.data.from_arrays(np.full((6, 2, 2, 1), 255, np.uint8), [*"aabbcc"])
    task = one_task(jm.tasks.domains(whole, whole), jax.random.key(0))
    assert task.support.x.dtype == jnp.float32 and float(task.query.x.max()) == 1


def test_a_learner_of_the_family_is_meta_learned_over_pairs():
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    points = np.stack([4.0 * labels - 2, 0 * labels], 1) + random.normal(size=(60, 2))
    sampler = jm.tasks.rotated(jm.data.from_arrays(points, labels), (30, 60))
    learner = jm.deep_coral(
        jm.models.mlp(2, 4, (4,)), ways=2, features=4, inner_steps=3, inner_lr=0.05
    )
    loss = lambda params: learner.loss(params, task)[0]
    task = one_task(sampler, jax.random.key(0))
    slope = jax.jit(jax.grad(loss))(learner.init(jax.random.key(1)))
    sizes = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope)]
    assert np.isfinite(sizes).all() and max(sizes) > 0


OTHER = jm.data.from_arrays(THERE, np.repeat([*"abd"], [9, 6, 5]), name="there")
WIDE = jm.data.from_arrays(np.zeros((6, 3)), [*"aabbcc"], name="wide")
ONE = jm.data.from_arrays(HERE, ["a"] * 15)
TOKENS = jm.data.from_arrays(np.zeros((6, 2), np.int32), [*"aabbcc"])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: jm.tasks.domains(SOURCE, OTHER), "the same classes.* has c, d;"),
        (lambda: jm.tasks.domains(SOURCE, WIDE), "inputs of one shape and type"),
        (lambda: jm.tasks.domains(ONE, ONE), "source: expected 2 classes or more"),
        (lambda: jm.tasks.domains(HERE, TARGET), "source: expected a jm.Dataset"),
        (
            lambda: jm.tasks.domains(SOURCE, TARGET, sources=2),
            "sources: expected a whole number >= 3, got 2",
        ),
        (
            lambda: jm.tasks.domains(SOURCE, TARGET, sources=16),
            r"sources: expected .* 15 in all.* here has, got {'sources': 16}",
        ),
        (
            lambda: jm.tasks.domains(SOURCE, TARGET, targets=20),
            r"targets \+ queries: expected at least 1 of each and 20 in all",
        ),
        (lambda: jm.tasks.rotated(WIDE), "points .* or images .* to turn"),
        (lambda: jm.tasks.rotated(SOURCE, (3, 1)), r"angles: expected \(low, high\)"),
        (lambda: jm.tasks.shifted(SOURCE, -1.0), "shift: expected a number >= 0"),
        (lambda: jm.tasks.shifted(TOKENS), "arrays of floating numbers"),
        (
            lambda: jm.tasks.shifted(SOURCE, sources=8, targets=8),
            r"sources \+ targets \+ queries: expected .* 15 in all",
        ),
    ],
)
def test_what_does_not_fit_is_said(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
