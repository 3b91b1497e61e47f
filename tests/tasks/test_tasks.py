"""Task distributions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import many_tasks, one_task
from scipy.stats import kstest

import jaxmeta as jm
from jaxmeta.tasks.augment import jittered
from jaxmeta.tasks.gaussian_process import posterior


def test_sinusoids_have_the_papers_ranges():
    tasks = many_tasks(jm.tasks.sinusoid(10, 200), jax.random.key(0), 500)
    tasks = jax.device_get(tasks)
    assert tasks.support.x.shape == (500, 10, 1)
    assert -5 <= tasks.query.x.min() < -4.9 and 4.9 < tasks.query.x.max() <= 5
    # amplitude and phase of each task by linear regression on sin and cos
    x, y = (a[..., 0] for a in tasks.query[:2])
    found = [
        np.linalg.lstsq(np.stack([np.sin(a), np.cos(a)], 1), b, rcond=None)[0]
        for a, b in zip(x, y, strict=True)
    ]
    amplitude = np.hypot(*np.transpose(found))
    phase = np.array([np.arctan2(-c, s) for s, c in found])
    assert 0.09 < amplitude.min() < 0.2 and 4.9 < amplitude.max() < 5.01
    assert abs(amplitude.mean() - 2.55) < 0.2
    assert -0.01 < phase.min() < 0.05 and 3.09 < phase.max() < 3.15


def numbered(classes=12, examples=6, side=4):
    """Images that say which class and example they are."""
    code = np.arange(classes * examples) + 1
    images = np.zeros((len(code), side, side, 1), np.float32)
    images[:, 0, 0, 0] = code
    return jm.data.from_arrays(images, np.repeat(np.arange(classes), examples))


def test_episodes_draw_different_classes_and_examples():
    sampler = jm.tasks.episodes(numbered(), ways=5, shots=2, queries=3)
    tasks = many_tasks(sampler, jax.random.key(0), 200)
    assert tasks.support.y[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    codes = [np.asarray(b.x)[:, :, 0, 0, 0].astype(int) - 1 for b in tasks]
    codes = np.concatenate(
        [c.reshape(200, 5, -1) for c in codes], axis=2
    )  # [200, 5, 5]
    classes = codes // 6
    assert (classes == classes[:, :, :1]).all()  # a label, a class
    assert all(len(set(row)) == 5 for row in classes[:, :, 0])
    assert all(len(set(row)) == 5 for row in codes.reshape(-1, 5))  # no example twice
    # every class and every example equally often: 1000 draws over 12, sd below 10
    counts = np.bincount(classes[:, :, 0].ravel(), minlength=12)
    assert abs(counts - 1000 / 12).max() < 45
    assert abs(np.bincount((codes % 6).ravel(), minlength=6) - 5000 / 6).max() < 120


def test_episodes_never_draw_padding():
    images = np.ones((10, 4, 4, 1), np.float32)
    data = jm.data.from_arrays(images, [0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
    sampler = jm.tasks.episodes(data, ways=2, shots=1, queries=2)
    tasks = many_tasks(sampler, jax.random.key(0), 100)
    assert np.min(tasks.query.x) == 1


def test_rotations_are_classes_of_their_own():
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1).repeat(3, axis=0)
    data = jm.data.from_arrays(image, [0, 0, 0])
    sampler = jm.tasks.episodes(data, 4, 1, 2, rotations=True)
    task = jax.device_get(one_task(sampler, jax.random.key(0)))
    turns = {np.rot90(image[0, ..., 0], k).tobytes() for k in range(4)}
    seen = np.round(task.support.x[..., 0] * 255).astype(np.uint8)
    assert {a.tobytes() for a in seen} == turns
    for k in range(4):  # and query examples are turned as their class
        assert (task.query.x[2 * k] == task.support.x[k]).all()


@pytest.mark.slow
def test_jitter_moves_images_a_little():
    image = np.zeros((28, 28, 1), np.float32)
    image[10:18, 12:16] = 1
    many = jax.jit(jax.vmap(jittered, (0, None, None)))
    keys = jax.random.split(jax.random.key(0), 50)
    same, moved = (
        np.asarray(many(jax.random.clone(keys), image, s)) for s in (0.0, 1.0)
    )
    np.testing.assert_allclose(same, image[None].repeat(50, axis=0), atol=1e-6)
    grid = np.arange(28.0)
    rows = (moved.sum((2, 3)) @ grid) / moved.sum((1, 2, 3))
    assert 0.5 < float(rows.std()) < 3 and abs(float(rows.mean()) - 13.5) < 0.8
    area = moved.sum((1, 2, 3)) / image.sum()
    assert 0.5 < float(area.min()) < 0.95 < 1.05 < float(area.max()) < 2
    still = jm.tasks.episodes(jm.data.glyphs("test"), 2, 1, 1, jitter=0.0)
    shaken = jm.tasks.episodes(jm.data.glyphs("test"), 2, 1, 1, jitter=1.0)
    a, b = (one_task(s, jax.random.key(0)).support.x for s in (still, shaken))
    assert 0 < np.abs(np.asarray(a) - np.asarray(b)).mean() < 0.3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ways": 13}, "ways: 13 classes wanted, arrays has 12; lower ways"),
        ({"ways": 49, "rotations": True}, r"has 48 \(with rotations\)"),
        ({"shots": 3, "queries": 4}, "3 \\+ 4 examples .* class '0' of arrays has 6"),
        ({"shots": 0}, "shots: expected a whole number >= 1, got 0"),
    ],
)
def test_episodes_that_do_not_fit_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        jm.tasks.episodes(
            numbered(), **({"ways": 5, "shots": 1, "queries": 1} | options)
        )


def test_rotations_and_jitter_need_images(blobs):
    with pytest.raises(
        ValueError, match=r"expected images \[height, width, channels\]"
    ):
        jm.tasks.episodes(blobs, 5, 1, 1, rotations=True)


def test_samplers_are_pytrees_whose_arrays_are_leaves():
    """Data are arguments: one compiled program serves two data sets of one shape."""
    first = jm.tasks.episodes(numbered(), 2, 1, 1)
    other = jm.tasks.episodes(numbered(), 2, 1, 1)
    sample = jax.jit(lambda s, k: s.sample(k))
    sample(first, jax.random.key(0))
    sample(other, jax.random.key(0))
    assert sample._cache_size() == 1
    assert any(leaf is first.x for leaf in jax.tree.leaves(first))


def test_gaussian_process_has_its_covariance_and_sizes():
    sampler = jm.tasks.gaussian_process()
    draw = jax.jit(jax.vmap(sampler.sample_with_kernel))
    drawn = draw(jax.random.split(jax.random.key(0), 2000))
    tasks, length, scale = jax.device_get(drawn)
    assert length.min() >= 0.1 and length.max() <= 0.6 and scale.max() <= 1
    support, query = (b.mask.sum(1) for b in tasks)
    assert support.min() == 3 and support.max() == 46
    assert query.min() == 3 and (support + query).max() <= 49
    # normalised outputs have variance 1 + (noise / scale)^2, and neighbours correlate
    y = tasks.support.y[..., 0] / scale[:, None]
    noise = np.mean((0.02 / scale) ** 2)
    assert abs(np.mean(y**2) - 1 - noise) < 0.05
    x = tasks.support.x[..., 0]
    expected = np.exp(-0.5 * ((x[:, 0] - x[:, 1]) / length) ** 2)
    assert abs(np.mean(y[:, 0] * y[:, 1]) - expected.mean()) < 0.06


def test_exact_log_likelihood_is_above_any_other_kernels():
    """On average the true kernel predicts best."""
    sampler = jm.tasks.gaussian_process()
    keys = jax.random.split(jax.random.key(1), 300)
    exact = jax.jit(jax.vmap(sampler.exact_log_likelihood))(keys)

    @jax.jit
    @jax.vmap
    def with_longer_scale(key):
        task, length, scale = sampler.sample_with_kernel(key)
        mean, std = posterior(task.support, task.query.x, 1.3 * length, scale, 0.02)
        density = jax.scipy.stats.norm.logpdf(task.query.y, mean, std)[:, 0]
        return jnp.sum(density * task.query.mask) / jnp.sum(task.query.mask)

    other = with_longer_scale(jax.random.clone(keys))
    assert np.mean(exact) > np.mean(other) + 0.1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"points": 6}, "whole number >= 7"), ({"noise": 0.0}, "noise: .* number > 0")],
)
def test_gaussian_processes_that_make_no_sense_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        jm.tasks.gaussian_process(**options)


def test_episodes_within_groups():
    """Ways of ONE alphabet; alphabets that are too small are left out."""
    data = numbered(classes=12)
    groups = tuple("ABCD"[0 if i < 5 else 1 if i < 9 else 2] for i in range(12))
    data = dataclasses.replace(data, groups=groups)
    sampler = jm.tasks.episodes(data, ways=4, shots=1, queries=2, within_groups=True)
    tasks = many_tasks(sampler, jax.random.key(0), 300)
    classes = (np.asarray(tasks.support.x)[:, :, 0, 0, 0].astype(int) - 1) // 6
    names = np.array(groups)[classes]
    assert (names == names[:, :1]).all()
    assert all(len(set(row)) == 4 for row in classes)
    assert set(names[:, 0]) == {"A", "B"}  # C has 3 letters
    assert abs((names[:, 0] == "A").mean() - 5 / 9) < 0.1  # as many chances as letters
    turned = jm.tasks.episodes(data, 10, 1, 1, within_groups=True, rotations=True)
    codes = np.asarray(one_task(turned, jax.random.key(1)).support.x).sum((1, 2, 3))
    assert len(set(np.array(groups)[(codes.astype(int) - 1) // 6])) == 1


def test_episodes_with_unlabelled_examples_and_distractors():
    sampler = jm.tasks.episodes(
        numbered(), ways=3, shots=1, queries=2, unlabelled=2, distractors=1
    )
    tasks = many_tasks(sampler, jax.random.key(0), 50)
    assert tasks.support.y[0].tolist() == [0, 1, 2] + [-1] * 8
    assert tasks.query.y[0].tolist() == [0, 0, 1, 1, 2, 2]
    codes = [np.asarray(b.x)[:, :, 0, 0, 0].astype(int) - 1 for b in tasks]
    assert all(len(set(row)) == 17 for row in np.concatenate(codes, axis=1))
    classes = codes[0] // 6
    hidden = classes[:, 3:].reshape(50, 4, 2)
    assert (hidden == hidden[:, :, :1]).all()
    assert (hidden[:, :3, 0] == classes[:, :3]).all()  # of the task's own classes
    assert all(row[3, 0] not in row[:3, 0] for row in hidden)  # a distractor


def test_minibatches_of_classes():
    data = jm.data.from_arrays(
        np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1), [0, 0, 0, *[1] * 7]
    )
    sampler = jm.tasks.classes(data, batch=50)
    task = jax.device_get(one_task(sampler, jax.random.key(0)))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), *task))
    x, y = np.asarray(task.query.x).ravel(), np.asarray(task.query.y)
    assert ((x >= 3) == (y == 1)).all()
    assert set(x) == set(range(10))  # and no padding: class 0 has 3 of 7 rows
    assert 15 < y.sum() < 35
    turned = jm.tasks.classes(numbered(), batch=200, rotations=True)
    assert turned.classes == 48
    task = one_task(turned, jax.random.key(0))
    x, y = np.asarray(task.query.x)[..., 0], np.asarray(task.query.y)
    corner = [image[0, 0] or image[3, 0] or image[3, 3] or image[0, 3] for image in x]
    assert ((np.array(corner).astype(int) - 1) // 6 == y // 4).all()
    places = [(0, 0), (3, 0), (3, 3), (0, 3)]  # turned counter-clockwise
    assert all(image[places[label % 4]] for image, label in zip(x, y, strict=True))


def test_umtra_makes_classes_of_examples():
    images = np.random.default_rng(0).random((40, 12, 12, 1), np.float32)
    sampler = jm.tasks.umtra(images, ways=4, shots=2, queries=3)
    task = jax.jit(sampler.sample)(jax.random.key(0))
    x = np.asarray(task.support.x).reshape(4, 2, -1)
    flat = images.reshape(40, -1)
    assert all((row[0] == flat).all(axis=1).any() for row in x)  # the example itself
    assert not any((row[1] == flat).all(axis=1).any() for row in x)  # and a view of it
    assert len(np.unique(x[:, 0], axis=0)) == 4
    assert task.query.y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    add = lambda key, x: x + jax.random.uniform(key, (), minval=10.0, maxval=11.0)
    points = one_task(jm.tasks.umtra(flat, ways=4, augment=add), jax.random.key(1))
    away = np.asarray(points.query.x) - np.asarray(points.support.x)
    assert (away >= 9.99).all() and len({round(float(a), 4) for a in away[:, 0]}) == 4


def test_cactus_finds_the_classes(blobs):
    """Far-apart clusters of an embedding are the true classes."""
    x = blobs.x
    y = np.repeat(np.arange(20), 8)
    embeddings = 100.0 * np.eye(20)[y] + x[:, :1]
    sampler = jm.tasks.cactus(
        np.concatenate([x, y[:, None]], 1),
        embeddings,
        3,
        2,
        2,
        clusters=20,
        partitions=3,
    )
    tasks = many_tasks(sampler, jax.random.key(0), 100)
    true = [np.asarray(b.x)[..., -1].reshape(100, 3, 2) for b in tasks]
    true = np.concatenate(true, axis=2)
    assert (true == true[..., :1]).mean() > 0.9  # k-means may join two classes
    numbers = np.concatenate([b.x.reshape(100, 6, 7) for b in tasks], axis=1)
    assert all(len(np.unique(rows, axis=0)) == 12 for rows in numbers)


def test_cactus_scales_all_dimensions_but_those_of_the_first_partition(monkeypatch):
    seen, embeddings = [], np.random.default_rng(0).normal(size=(30, 500))

    def clusters(points, k, **more):
        seen.append(points)
        return None, np.arange(30) % k

    monkeypatch.setattr("scipy.cluster.vq.kmeans2", clusters)
    jm.tasks.cactus(embeddings, embeddings, 3, 2, 2, clusters=5, partitions=3)
    np.testing.assert_array_equal(seen[0], embeddings)
    for points in seen[1:]:
        scale = points / embeddings
        np.testing.assert_allclose(scale, np.broadcast_to(scale[0], scale.shape))
        assert kstest(scale[0], "uniform").pvalue > 0.01  # on 0..1


@pytest.mark.parametrize("kind", ["umtra", "cactus"])
def test_unsupervised_tasks_teach(kind, blobs):
    """Trained without a label, tested with them: better than the untrained encoder."""
    noise = np.random.default_rng(0).normal(scale=3.0, size=(160, 6))
    x = np.concatenate([blobs.x, noise], axis=1)
    x = x.astype(np.float32)
    data = jm.data.from_arrays(x, np.repeat(np.arange(20), 8))
    test = jm.tasks.episodes(data, 3, 2, 3)
    if kind == "umtra":
        scale = np.array([0.3] * 6 + [3.0] * 6, np.float32)
        view = lambda key, x: x + scale * jax.random.normal(key, x.shape)
        train = jm.tasks.umtra(x, ways=5, queries=2, augment=view)
    else:
        train = jm.tasks.cactus(x, x[:, :6], 3, 2, 2, clusters=16, partitions=2)
    learner = jm.protonet(jm.models.mlp(12, 8, (16,)), ways=3)
    trainer = jm.protonet(jm.models.mlp(12, 8, (16,)), ways=train.ways)
    start = learner.init(jax.random.key(0))
    state = jm.fit(
        trainer, train, optax.adam(3e-3), steps=300, key=jax.random.key(1), chunk=300
    )
    before, after = (
        jm.evaluate(learner, p, test, num_tasks=200, key=jax.random.key(2))
        for p in (start, state.params)
    )
    assert after.mean["accuracy"] > before.mean["accuracy"] + 0.1


def test_tables_are_random_functions_of_their_columns():
    sampler = jm.tasks.tables(columns=4, ways=None, shots=200, queries=100, noise=0.0)
    tasks = many_tasks(sampler, jax.random.key(0), 30)
    y = np.concatenate([np.asarray(b.y) for b in tasks], axis=1)
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=1), 1, rtol=1e-5)
    used = (np.asarray(tasks.support.x) != 0).any(axis=1).sum(axis=1)
    assert set(used) == {1, 2, 3, 4}
    classes = jm.tasks.tables(columns=2, ways=3, shots=30, queries=30)
    task = one_task(classes, jax.random.key(1))
    assert np.bincount(np.concatenate([b.y for b in task])).tolist() == [20, 20, 20]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda d: jm.tasks.episodes(d, 3, 1, 1, within_groups=True), "no such group"),
        (
            lambda d: jm.tasks.episodes(d, 3, 1, 1, distractors=1),
            "unlabelled >= 1 with",
        ),
        (lambda d: jm.tasks.episodes(d, 3, 1, 1, unlabelled=-1), "unlabelled: .*>= 0"),
        (
            lambda d: jm.tasks.episodes(d, 3, 2, 3, unlabelled=4),
            r"2 \+ 3 \+ 4 unlabelled",
        ),
        (
            lambda d: jm.tasks.episodes(d, 19, 1, 1, unlabelled=1, distractors=2),
            "19 classes and 2 distractors wanted",
        ),
        (lambda d: jm.tasks.classes(d, batch=0), "batch: expected a whole number >= 1"),
        (lambda d: jm.tasks.classes(d, rotations=True), "expected images"),
        (lambda d: jm.tasks.umtra(np.zeros((3, 4, 4, 1))), "ways: 5 examples wanted"),
        (lambda d: jm.tasks.umtra(np.zeros((9, 4))), "give a function"),
        (lambda d: jm.tasks.umtra(np.full((9, 4), np.nan)), "umtra images: .* NaN"),
        (
            lambda d: jm.tasks.cactus(np.zeros((9, 2)), np.zeros((8, 2))),
            r"embeddings: expected \[9, features\]",
        ),
        (
            lambda d: jm.tasks.cactus(np.zeros((9, 2)), np.zeros((9, 2)), clusters=10),
            "clusters: 10 wanted of 9",
        ),
        (
            lambda d: jm.tasks.cactus(np.eye(9), np.eye(9), 5, 1, 2, clusters=9),
            "lower clusters or queries",
        ),
        (lambda d: jm.tasks.tables(ways=1), "ways: expected a whole number >= 2"),
    ],
)
def test_other_tasks_that_do_not_fit_are_refused(make, sentence, blobs):
    with pytest.raises(ValueError, match=sentence):
        make(blobs)
