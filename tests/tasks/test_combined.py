"""Tasks of a user's table, of several domains, with changed sets, frozen to a file."""

import jax
import numpy as np
import optax
import pytest
from problems import many_tasks, one_task

import jaxmeta as jm

random = np.random.default_rng(0)
SIZES = np.array([5, 8, 12, 20])  # rows of each task
TASK = np.repeat(["ann", "bob", "cid", "dee"], SIZES)
SLOPE = dict(zip(["ann", "bob", "cid", "dee"], [-2.0, -1.0, 1.0, 2.0], strict=True))
X = random.normal(size=(45, 1)).astype(np.float32)
Y = X * np.array([SLOPE[t] for t in TASK], np.float32)[:, None]
DATA = jm.data.from_arrays(X, TASK, targets=Y)


@pytest.mark.parametrize("shots", [2, (1, 6), None])
def test_rows_of_a_task_have_their_own_targets(shots):
    sampler = jm.tasks.by_task(DATA, shots, queries=3)
    tasks = jax.device_get(many_tasks(sampler, jax.random.key(0), 100))
    seen = set()
    for i in range(100):
        support, query = jax.tree.map(lambda a, i=i: a[i], tasks)
        keep = np.ones(len(support.x)) if support.mask is None else support.mask
        x = np.concatenate([support.x[keep > 0], query.x])
        y = np.concatenate([support.y[keep > 0], query.y])
        assert len(set(x[:, 0])) == len(x) and np.ptp(y / x) < 1e-5
        size = SIZES[list(SLOPE.values()).index(round(float(y[0, 0] / x[0, 0])))]
        expected = {2: [2], None: [size - 3]}.get(shots, range(1, min(6, size - 3) + 1))
        assert (keep > 0).sum() in expected
        seen.add(size)
    assert seen == set(SIZES)


def test_a_learner_is_trained_on_the_rows_of_a_table():
    learner = jm.maml(jm.models.mlp(hidden=(8,)), inner_lr=0.05, loss=jm.losses.mse)
    sampler = jm.tasks.by_task(DATA, queries=2)
    state = jm.fit(learner, sampler, optax.adam(1e-2), steps=150, key=jax.random.key(0))
    before, after = (
        jm.evaluate(learner, p, sampler, num_tasks=50, key=jax.random.key(1))
        for p in (learner.init(jax.random.key(0)), state.params)
    )
    assert after.mean["loss"] < before.mean["loss"]


def test_mixed_draws_by_weight():
    low, high = (jm.tasks.sinusoid(3, 3, x_range=r) for r in ((0.0, 1.0), (2.0, 3.0)))
    tasks = many_tasks(jm.tasks.mixed([low, high], [3, 1]), jax.random.key(0), 400)
    share = np.mean(np.asarray(tasks.query.x).min(axis=(1, 2)) < 1.5)
    assert abs(share - 0.75) < 0.09  # sd 0.02


def test_mixup_changes_the_support_set_alone(blobs):
    plain = jm.tasks.episodes(blobs, 3, 2, 2)
    mixup = jm.tasks.changed(plain, support=jm.tasks.augment.mixup(1.0))
    key = jax.random.key(0)
    a, b = one_task(plain, key), one_task(mixup, jax.random.clone(key))
    assert mixup.ways == 3
    np.testing.assert_array_equal(a.query.x, b.query.x)
    assert np.abs(np.asarray(a.support.x) - np.asarray(b.support.x)).max() > 0.01


def test_frozen_episodes_are_read_back(tmp_path, blobs):
    texts = jm.data.from_arrays(
        {
            "ids": np.arange(24, dtype=np.int32).reshape(12, 2),
            "pair": (np.ones((12, 1)),),
        },
        np.arange(12) % 3,
    )
    for sampler in (
        jm.tasks.episodes(blobs, (2, 3), (1, 2), 2),
        jm.tasks.episodes(texts, 2, 1, 2),
    ):
        path = tmp_path / "tasks.npz"
        made = jm.tasks.freeze(sampler, 5, jax.random.key(0), path)
        read = jm.tasks.frozen(path)
        assert jax.tree.structure(made) == jax.tree.structure(read)
        for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(read), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    content = path.read_bytes()
    for damaged in (b"", content[:200], content.replace(b"support.y", b"support.z")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"tasks.npz is damaged, .*write it again"):
            jm.tasks.frozen(path)
    np.savez(path, a=np.array([{}]), checksum="0")
    with pytest.raises(ValueError, match=r"is damaged, .*pickle"):
        jm.tasks.frozen(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        jm.tasks.frozen(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: jm.tasks.by_task(DATA, 4, 3),
            "class 'ann' of arrays has 5; .*at_least",
        ),
        (lambda: jm.tasks.by_task(DATA, queries=5), r"1 \+ 5 .* class 'ann'"),
        (
            lambda: jm.tasks.by_task(jm.data.from_arrays(X, TASK)),
            "dataset: arrays has no targets",
        ),
        (
            lambda: jm.data.from_arrays(X, TASK, targets=Y[1:]),
            r"targets: expected numbers \[45, ...\]",
        ),
        (lambda: jm.tasks.mixed([]), "samplers: expected a list"),
        (
            lambda: jm.tasks.mixed([jm.tasks.sinusoid(3, 3), jm.tasks.sinusoid(4, 3)]),
            "tasks of one shape",
        ),
        (
            lambda: jm.tasks.mixed([jm.tasks.sinusoid()], [0]),
            "weights: expected 1 positive",
        ),
        (lambda: jm.tasks.changed(jm.tasks.sinusoid(), query=3), "query: expected"),
    ],
)
def test_what_does_not_fit_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_mixed_episodes_are_those_of_the_parts(blobs):
    parts = [
        jm.tasks.episodes(blobs.select(range(i, i + 10)), 5, 1, 2) for i in (0, 10)
    ]
    keys = jax.random.split(jax.random.key(0), 20)

    @jax.jit
    @jax.vmap
    def draw(key):
        _, *own = jax.random.split(jax.random.clone(key), 3)
        made = [p.sample(k) for p, k in zip(parts, own, strict=True)]
        return jm.tasks.mixed(parts).sample(key), made

    tasks, made = jax.device_get(draw(keys))
    same = [(m.support.x == tasks.support.x).all(axis=(1, 2)) for m in made]
    assert (np.sum(same, axis=0) == 1).all()
    assert np.any(same, axis=1).all()  # each of them at times
