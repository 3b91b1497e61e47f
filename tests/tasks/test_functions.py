"""Functions as tasks, against numbers that they did not make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from problems import many_tasks, one_task
from sklearn.gaussian_process import kernels as reference

import jaxmeta as jm
from jaxmeta import keys
from jaxmeta.tasks.gaussian_process import posterior
from jaxmeta.tasks.kernels import KERNELS

pytestmark = pytest.mark.slow  # what it says depends on no version

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((6, 4, 5, 3), np.float32)
LENGTHS = {  # what each kernel calls length
    "rbf": 0.4,
    "matern52": 0.4,
    "periodic": (0.5, 0.3),
    "weakly_periodic": (0.5, 0.3, 1.7),
}


def by_scikit_learn(kernel, a, b, length, scale):
    """A kernel's matrix in double precision."""
    a, b, scale = np.float64(a), np.float64(b), float(scale)
    if kernel == "rbf":
        return scale**2 * reference.RBF(float(length))(a, b)
    if kernel == "matern52":
        return scale**2 * reference.Matern(float(length), nu=2.5)(a, b)
    length, period, *decay = map(float, length)
    one = reference.ExpSineSquared(length, period)
    found = np.prod([one(a[:, [i]], b[:, [i]]) for i in range(a.shape[1])], axis=0)
    return scale**2 * found * (reference.RBF(decay[0])(a, b) if decay else 1.0)


def by_hand(seen, cross, prior, y):
    """Mean and variance of noisy observations; `seen`, `prior` have the noise in them."""
    weights = np.linalg.solve(seen, cross)
    return weights.T @ y, prior - np.sum(weights * cross, axis=0)


def log_density(y, mean, variance):
    return scipy.stats.norm.logpdf(y, mean, np.sqrt(variance)).mean()


def counted(batch, i):
    """x and y of the i-th task, without padding."""
    keep = np.asarray(batch.mask[i]) > 0
    return np.float64(batch.x[i])[keep], np.float64(batch.y[i])[keep, 0]


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_and_posteriors_are_scikit_learns(kernel, dims):
    x, new = RANDOM.normal(size=(2, 6, dims)).astype(np.float32)
    y, length = RANDOM.normal(size=(6, 1)).astype(np.float32), LENGTHS[kernel]
    matrix = lambda a, b: by_scikit_learn(kernel, a, b, length, 0.8)
    np.testing.assert_allclose(
        KERNELS[kernel](x, new, length, 0.8), matrix(x, new), rtol=1e-4, atol=1e-6
    )
    mask = np.float32([1, 1, 0, 1, 1, 1])
    keep = mask > 0
    seen = matrix(x[keep], x[keep]) + 0.1**2 * np.eye(5)
    right = by_hand(seen, matrix(x[keep], new), 0.8**2 + 0.1**2, y[keep])
    mean, std = posterior(jm.Batch(x, y, mask), new, length, 0.8, 0.1, kernel)
    np.testing.assert_allclose(mean, right[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(std[:, 0], np.sqrt(right[1]), rtol=1e-3)


def test_the_weakly_periodic_kernel_is_the_papers():
    """Gordon et al. write it with cosines and sines of 8 pi x."""
    x = RANDOM.uniform(-2, 2, (9, 1)).astype(np.float32)
    waves = np.cos(8 * np.pi * x), np.sin(8 * np.pi * x)
    apart = sum((w - w.T) ** 2 for w in waves) / 2 + (x - x.T) ** 2 / 8
    found = KERNELS["weakly_periodic"](x, x, (1.0, 0.25, 2.0), 1.0)
    np.testing.assert_allclose(found, np.exp(-apart), atol=1e-5)


def test_matern_has_a_derivative_where_points_meet():
    x = np.float32([[0.0], [0.0], [1.0]])
    slope = jax.grad(lambda length: KERNELS["matern52"](x, x, length, 1.0).sum())(0.5)
    h = 1e-5
    above, below = (
        by_scikit_learn("matern52", x, x, 0.5 + s * h, 1.0).sum() for s in (1, -1)
    )
    np.testing.assert_allclose(slope, (above - below) / (2 * h), rtol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "dims"),
    [("rbf", 2), ("matern52", 1), ("periodic", 1), ("weakly_periodic", 2)],
)
def test_functions_of_a_process_have_the_kernel_they_were_drawn_with(kernel, dims):
    """Whitened by it, their values are standard normal; and the ceiling is numpy's."""
    sampler = jm.tasks.gaussian_process(points=30, kernel=kernel, dims=dims)

    def draw(key):
        exact = sampler.exact_log_likelihood(jax.random.clone(key))
        return *sampler.sample_with_kernel(key), exact

    drawn = jax.jit(jax.vmap(draw))(keys.tasks(jax.random.key(0), 80))
    tasks, lengths, scales, exact = jax.tree.map(np.asarray, drawn)
    noise, white, right = 0.02**2 + 1e-5, [], []
    for i in range(80):
        length = jax.tree.map(lambda a, i=i: a[i], lengths)
        matrix = lambda a, b, o=(length, scales[i]): by_scikit_learn(kernel, a, b, *o)
        (x, y), (new, target) = (counted(b, i) for b in tasks)
        seen = matrix(x, x) + noise * np.eye(len(x))
        white.extend(np.linalg.solve(np.linalg.cholesky(seen), y))
        prior = float(scales[i]) ** 2 + noise
        right.append(log_density(target, *by_hand(seen, matrix(x, new), prior, y)))
    white = np.array(white)
    assert abs(np.mean(white**2) - 1) < 4 * np.sqrt(2 / len(white))
    np.testing.assert_allclose(np.mean(exact), np.mean(right), atol=5e-3)
    for drawn, (low, high) in zip(
        jax.tree.leaves(lengths), [(0.1, 0.6), (0.1, 0.5), (2, 2)], strict=False
    ):
        assert low <= drawn.min() and drawn.max() <= high
    if kernel == "weakly_periodic":  # the draws know nothing of each other
        assert abs(np.corrcoef(lengths[0], lengths[1])[0, 1]) < 0.35


def test_harmonics_are_sums_of_two_waves():
    """Fitted by least squares on a grid of frequencies, they leave next to nothing."""
    sampler = jm.tasks.harmonics(shots=60, queries=60)
    task = one_task(sampler, jax.random.key(3))
    x, y = (np.asarray(a)[:, 0].astype(float) for a in task.support[:2])
    slow, fast = np.linspace(0.5, 1.5, 101), np.linspace(1.5, 3.0, 101)
    wave = lambda w: np.stack([np.sin(w * x), np.cos(w * x)], axis=1)
    best = np.inf
    for w in slow:
        for v in fast:
            basis = np.concatenate([wave(w), wave(v)], axis=1)
            c, rest, *_ = np.linalg.lstsq(basis, y, rcond=None)
            if rest.size and rest[0] < best:
                best, found = rest[0], c
    assert best / len(x) < 1e-3 * y.var()
    for part, (low, high) in zip(
        (found[:2], found[2:]), [(0.5, 3.0), (0.1, 1.0)], strict=True
    ):
        assert 0.9 * low < np.linalg.norm(part) < 1.1 * high


def test_half_are_sinusoids_half_are_lines():
    """Told apart by least squares, with the paper's ranges and noise."""
    tasks = many_tasks(jm.tasks.sinusoid_or_line(5, 100), jax.random.key(0), 400)
    x, y = (np.asarray(a, float)[..., 0] for a in tasks.query[:2])
    fits = []
    for basis in (
        np.stack([x, np.ones_like(x)], axis=2),
        np.stack([np.sin(x), np.cos(x)], axis=2),
    ):
        c = np.linalg.pinv(basis) @ y[..., None]
        fits.append((c[..., 0], np.square(y - (basis @ c)[..., 0]).mean(axis=1)))
    (lines, of_line), (waves, of_wave) = fits
    is_line = of_line < of_wave
    assert abs(is_line.mean() - 0.5) < 0.1
    rest = np.minimum(of_line, of_wave).mean() * 100 / 98  # two numbers were fitted
    assert abs(np.sqrt(rest) - 0.3) < 0.01
    lines = lines[is_line]
    assert (np.abs(lines) < 3.3).all() and (lines.min(0) < -2.5).all()
    assert (lines.max(0) > 2.5).all() and abs(np.corrcoef(lines.T)[0, 1]) < 0.3
    a, b = waves[~is_line & (np.hypot(*waves.T) > 1)].T
    assert 4.8 < np.hypot(a, b).max() < 5.2
    assert np.arctan2(-b, a).min() > -0.3 and np.arctan2(-b, a).max() < np.pi
    assert -5 <= x.min() < -4.9 and 4.9 < x.max() <= 5


def test_the_answer_to_a_linear_task_is_that_of_its_process():
    """A linear function with normal weights is a process with kernel w^2 a.b + c^2."""
    sampler = jm.tasks.linear(3, 6, 5, weight_std=0.7, bias_std=1.5, noise=0.2)

    @jax.jit
    def draw(key):
        exact = sampler.exact_log_likelihood(jax.random.clone(key))
        task = sampler.sample(key)
        support = task.support._replace(mask=jnp.arange(6.0) < 5)
        answers = (sampler.posterior(s, task.query.x) for s in (task.support, support))
        return task, exact, *answers

    task, exact, whole, masked = draw(jax.random.key(1))
    x, y, new = (np.float64(a) for a in (*task.support[:2], task.query.x))
    kernel = lambda a, b: 0.7**2 * a @ b.T + 1.5**2
    prior = np.diag(kernel(new, new)) + 0.2**2
    for n, (mean, std) in ((6, whole), (5, masked)):
        seen = kernel(x[:n], x[:n]) + 0.2**2 * np.eye(n)
        right = by_hand(seen, kernel(x[:n], new), prior, y[:n, 0])
        np.testing.assert_allclose(mean[:, 0], right[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(std[:, 0], np.sqrt(right[1]), rtol=1e-4)
        if n == 6:
            best = log_density(np.asarray(task.query.y)[:, 0], *right)
            np.testing.assert_allclose(exact, best, rtol=1e-3)


def test_linear_functions_have_the_weights_and_noise_they_say():
    sampler = jm.tasks.linear(2, 40, 1, weight_std=0.7, bias_std=1.5, noise=0.2)
    tasks = many_tasks(sampler, jax.random.key(0), 400)
    x, y = (np.asarray(a, float) for a in tasks.support[:2])
    basis = np.concatenate([x, np.ones((400, 40, 1))], axis=2)
    weights = np.linalg.pinv(basis) @ y
    rest = np.square(y - basis @ weights).sum(axis=(1, 2)).mean() / (40 - 3)
    assert abs(np.sqrt(rest) - 0.2) < 0.01
    np.testing.assert_allclose(weights.std(axis=0)[:, 0], [0.7, 0.7, 1.5], rtol=0.15)
    assert np.abs(weights.mean(axis=0)).max() < 0.25


def test_three_points_tell_a_parabola():
    sampler = jm.tasks.quadratic()
    tasks = many_tasks(sampler, jax.random.key(0), 300)
    x, y, new, target = (
        np.asarray(a, float)[..., 0] for b in tasks for a in (b.x, b.y)
    )
    powers = lambda x: np.stack([x**2, x, np.ones_like(x)], axis=2)
    p, q, r = np.moveaxis(np.linalg.pinv(powers(new)) @ target[..., None], 1, 0)[..., 0]
    a, c, b = p, -q / (2 * p), r - q**2 / (4 * p)
    for found, (low, high) in ((a, (0.5, 2)), (c, (-1, 1)), (b, (-1, 1))):
        assert low - 1e-3 < found.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < found.max() < high + 1e-3
    apart = np.abs(np.diff(np.sort(x, axis=1))).min(axis=1) > 0.5
    optima = jax.jit(jax.vmap(sampler.optimum))(tasks.support)
    for ours, theirs in zip(optima, (a, c, b), strict=True):
        np.testing.assert_allclose(ours[apart], theirs[apart], atol=1e-3)
    # a masked point tells nothing
    x, y = ([[0.0], [1.0], [2.0], [5.0]], [[3.0], [5.0], [11.0], [9.0]])
    batch = jm.Batch(np.float32(x), np.float32(y), np.float32([1, 1, 1, 0]))
    np.testing.assert_allclose(sampler.optimum(batch), (2, 0, 3), atol=1e-4)


def test_pixels_of_an_image():
    """Each intensity says which pixel of which image it is."""
    code = np.arange(40, dtype=np.uint8).reshape(2, 4, 5, 1)
    sampler = jm.tasks.image_completion(code, shots=(2, 6), queries=8)
    tasks = many_tasks(sampler, jax.random.key(0), 300)
    pairs = zip(tasks.support[:2], tasks.query[:2], strict=True)
    x, y = (np.concatenate(pair, axis=1) for pair in pairs)
    assert x.shape == (300, 14, 2) and y.max() <= 39 / 255
    seen = np.rint(y[..., 0] * 255).astype(int)
    place = np.stack([seen % 20 // 5 / 3, seen % 5 / 4], axis=2)
    np.testing.assert_allclose(x, place, atol=1e-6)
    assert all(len(set(row)) == 14 for row in seen)  # no pixel twice
    assert (seen // 20 == seen[:, :1] // 20).all()  # of one image
    assert abs((seen[:, 0] >= 20).mean() - 0.5) < 0.12
    assert abs(np.bincount(seen[:, 0] % 20, minlength=20) - 15).max() < 16
    sizes = np.asarray(tasks.support.mask).sum(axis=1)
    assert (np.bincount(sizes.astype(int))[2:] > 35).all() and sizes.max() == 6
    assert (np.diff(tasks.support.mask, axis=1) <= 0).all()
    assert tasks.query.mask is None


def test_the_whole_image_is_asked_for():
    sampler = jm.tasks.image_completion(IMAGES, shots=7)
    task = one_task(sampler, jax.random.key(0))
    assert task.support.mask is None and task.support.y.shape == (7, 3)
    image = np.asarray(task.query.y).reshape(4, 5, 3)
    assert any((image == other).all() for other in IMAGES)
    rows, columns = np.asarray(task.query.x).T.reshape(2, 4, 5)
    np.testing.assert_allclose(rows[:, 0], np.arange(4) / 3, rtol=1e-6)
    np.testing.assert_allclose(columns[0], np.arange(5) / 4, rtol=1e-6)


@pytest.mark.parametrize(
    "sampler",
    [
        jm.tasks.harmonics(3, 4),
        jm.tasks.sinusoid_or_line(3, 4),
        jm.tasks.linear(2, 3, 4),
        jm.tasks.quadratic(3, 4),
        jm.tasks.gaussian_process(points=9, kernel="weakly_periodic", dims=2),
        jm.tasks.image_completion(IMAGES, (2, 5), 3),
    ],
    ids=lambda s: type(s).__name__,
)
def test_a_key_tells_the_task_and_ranges_are_arguments(sampler):
    sample = jax.jit(lambda sampler, key: sampler.sample(key))
    key = jax.random.key(7)
    first, again = (sample(sampler, jax.random.clone(key)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = sample(jax.tree.map(lambda a: 1.25 * a, sampler), key)
    assert not np.allclose(other.query.y, first.query.y)
    assert sample._cache_size() == 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda t: t.gaussian_process(kernel="cubic"), "kernel: expected one of rbf"),
        (lambda t: t.gaussian_process(length=(0.0, 1.0)), r"length\[0\]: .* > 0"),
        (lambda t: t.gaussian_process(dims=0), "dims: .*whole number >= 1"),
        (lambda t: t.linear(noise=0.0), "noise: .* number > 0"),
        (lambda t: t.quadratic(centre=(1.0, 0.0)), "centre: .*low <= high"),
        (lambda t: t.sinusoid_or_line(noise=-1.0), "noise: .* number >= 0"),
        (lambda t: t.harmonics(fast=(2.0, 1.0)), "fast: .*low <= high"),
        (lambda t: t.image_completion(IMAGES[0]), r"images: expected \[examples, h"),
        (lambda t: t.image_completion(np.ones((2, 4, 4, 1), int)), "uint8 or floating"),
        (lambda t: t.image_completion(IMAGES, (3, 2)), "shots: .*fewest <= most"),
        (
            lambda t: t.image_completion(IMAGES, 15, 6),
            r"15 \+ 6 pixels wanted.* has 20",
        ),
        (lambda t: t.image_completion(IMAGES, (3, 21)), "21 pixels wanted"),
        (lambda t: t.quadratic().optimum(jm.Batch(*np.ones((2, 2, 1)))), "3 points"),
        (
            lambda t: posterior(jm.Batch(*np.ones((2, 2, 1))), 0, 1, 1, 1, "rbv"),  # ty: ignore
            "unknown kernel 'rbv'.*did you mean 'rbf'",
        ),
    ],
)
def test_functions_that_make_no_sense_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(jm.tasks)
