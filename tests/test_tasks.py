"""Task distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta.tasks.episodes import jittered
from jaxmeta.tasks.gaussian_process import posterior


def test_sinusoids_have_the_papers_ranges():
    tasks = jm.sample_tasks(jm.tasks.sinusoid(10, 200), jax.random.key(0), 500)
    assert tasks.support.x.shape == (500, 10, 1)
    assert -5 <= tasks.query.x.min() < -4.9 and 4.9 < tasks.query.x.max() <= 5
    # amplitude and phase of each task by linear regression on sin and cos
    x, y = (np.asarray(a)[..., 0] for a in tasks.query[:2])
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
    tasks = jm.sample_tasks(sampler, jax.random.key(0), 200)
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
    tasks = jm.sample_tasks(sampler, jax.random.key(0), 100)
    assert float(tasks.query.x.min()) == 1


def test_rotations_are_classes_of_their_own():
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1).repeat(3, axis=0)
    data = jm.data.from_arrays(image, [0, 0, 0])
    task = jm.tasks.episodes(data, 4, 1, 2, rotations=True).sample(jax.random.key(0))
    turns = {np.rot90(image[0, ..., 0], k).tobytes() for k in range(4)}
    seen = np.round(np.asarray(task.support.x)[..., 0] * 255).astype(np.uint8)
    assert {a.tobytes() for a in seen} == turns
    for k in range(4):  # and query examples are turned as their class
        assert (task.query.x[2 * k] == task.support.x[k]).all()


def testjittered_moves_images_a_little():
    image = jnp.zeros((28, 28, 1)).at[10:18, 12:16].set(1.0)
    np.testing.assert_allclose(
        jittered(jax.random.key(0), image, 0.0), image, atol=1e-6
    )
    moved = jax.vmap(lambda k: jittered(k, image, 1.0))(
        jax.random.split(jax.random.key(0), 50)
    )
    grid = jnp.arange(28.0)
    rows = (moved.sum((2, 3)) @ grid) / moved.sum((1, 2, 3))
    assert 0.5 < float(rows.std()) < 3 and abs(float(rows.mean()) - 13.5) < 0.8
    area = moved.sum((1, 2, 3)) / image.sum()
    assert 0.5 < float(area.min()) < 0.95 < 1.05 < float(area.max()) < 2
    still = jm.tasks.episodes(jm.data.glyphs("test"), 2, 1, 1, jitter=0.0)
    shaken = jm.tasks.episodes(jm.data.glyphs("test"), 2, 1, 1, jitter=1.0)
    a, b = (s.sample(jax.random.key(0)).support.x for s in (still, shaken))
    assert 0 < float(jnp.abs(a - b).mean()) < 0.3


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


def test_rotations_andjittered_need_images(blobs):
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
    assert any(leaf is first.images for leaf in jax.tree.leaves(first))


def test_gaussian_process_has_its_covariance_and_sizes():
    sampler = jm.tasks.gaussian_process()
    draw = jax.jit(jax.vmap(sampler.sample_with_kernel))
    tasks, length, scale = draw(jax.random.split(jax.random.key(0), 2000))
    assert length.min() >= 0.1 and length.max() <= 0.6 and scale.max() <= 1
    support, query = (np.asarray(b.mask).sum(1) for b in tasks)
    assert support.min() == 3 and support.max() == 46
    assert query.min() == 3 and (support + query).max() <= 49
    # normalised outputs have variance 1 + (noise / scale)^2, and neighbours correlate
    y = np.asarray(tasks.support.y)[..., 0] / np.asarray(scale)[:, None]
    noise = np.mean((0.02 / np.asarray(scale)) ** 2)
    assert abs(np.mean(y**2) - 1 - noise) < 0.05
    x = np.asarray(tasks.support.x)[..., 0]
    expected = np.exp(-0.5 * ((x[:, 0] - x[:, 1]) / np.asarray(length)) ** 2)
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
    assert float(exact.mean()) > float(other.mean()) + 0.1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"points": 6}, "at least 7"), ({"noise": 0.0}, "standard deviation > 0")],
)
def test_gaussian_processes_that_make_no_sense_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        jm.tasks.gaussian_process(**options)
