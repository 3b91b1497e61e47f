"""Augmentations of images, against numpy, Pillow and formulas."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from problems import one_task
from scipy.special import betainc

import jaxmeta as jm
from jaxmeta.tasks import augment
from jaxmeta.tasks.augment import check_augment

pytestmark = pytest.mark.slow  # what it says depends on no version

RANDOM = np.random.default_rng(0)
PHOTO = RANDOM.integers(60, 160, (8, 6, 3)).astype(np.uint8)  # no factor here clips it
IMAGE = PHOTO.astype(np.float32) / 255
EACH = {
    "flip": augment.flip(),
    "crop": augment.crop(2),
    "colour": augment.colour(),
    "affine": augment.affine(),
    "cutout": augment.cutout(3),
    "chain": augment.chain(augment.flip(), augment.colour(0.2)),
}


def views(change, image, number, seed=0):
    """[number, ...] an image changed with that many keys."""
    keys = jax.random.split(jax.random.key(seed), number)
    return np.asarray(jax.jit(jax.vmap(change, (0, None)))(keys, image))


@pytest.mark.parametrize("vertical", [False, True])
def test_flips_are_numpys_and_half_of_all(vertical):
    found = views(augment.flip(vertical), IMAGE, 400)
    flipped = (np.flipud if vertical else np.fliplr)(IMAGE)
    turned = (found == flipped).all(axis=(1, 2, 3))
    assert (turned | (found == IMAGE).all(axis=(1, 2, 3))).all()
    assert abs(turned.mean() - 0.5) < 0.08  # 3 sd


def test_crops_are_windows_of_the_reflected_image_all_equally_often():
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = [padded[i : i + 8, j : j + 6] for i in range(5) for j in range(5)]
    found = views(augment.crop(2), IMAGE, 1000)
    same = np.array([(found == w).all(axis=(1, 2, 3)) for w in windows])
    assert (same.sum(axis=0) == 1).all()  # each view is one of them
    assert same.sum(axis=1).min() > 15 and same.sum(axis=1).max() < 70  # 40, sd 6.2
    np.testing.assert_array_equal(augment.crop(0)(jax.random.key(0), IMAGE), IMAGE)


OF_PILLOW = {
    "brightness": (ImageEnhance.Brightness, lambda x: np.zeros_like(x)),
    "contrast": (
        ImageEnhance.Contrast,
        lambda x: np.full_like(x, (x @ np.array([0.299, 0.587, 0.114])).mean()),
    ),
    "saturation": (
        ImageEnhance.Color,
        lambda x: (x @ np.array([0.299, 0.587, 0.114]))[..., None].repeat(3, axis=2),
    ),
}


@pytest.mark.parametrize("name", OF_PILLOW)
def test_colours_are_pillows(name):
    """The factor of each view by regression; a view of that factor by Pillow."""
    enhance, other = OF_PILLOW[name]
    strengths = dict.fromkeys(OF_PILLOW, 0.0) | {name: 0.5}
    found = views(augment.colour(**strengths), IMAGE, 200)
    x = IMAGE.astype(np.float64)
    from_other = x - other(x)
    factors = ((found - other(x)) * from_other).sum((1, 2, 3)) / (from_other**2).sum()
    assert 0.5 <= factors.min() < 0.53 and 1.47 < factors.max() <= 1.5
    assert abs(factors.mean() - 1) < 0.07  # sd of the mean 0.02
    for view, factor in zip(found[:5], factors, strict=False):
        pillow = enhance(Image.fromarray(PHOTO)).enhance(factor)
        np.testing.assert_allclose(255 * view, np.asarray(pillow), atol=1.6)  # bytes


def test_colours_are_clipped_and_grey_has_no_saturation():
    strong = views(augment.colour(3.0, 3.0, 3.0), IMAGE, 50)
    assert strong.min() == 0 and strong.max() == 1
    none = augment.colour(0, 0, 0)
    np.testing.assert_array_equal(none(jax.random.key(0), IMAGE), IMAGE)
    grey = IMAGE[..., :1]
    same = augment.colour(0, 0, 0.9)(jax.random.key(0), grey)
    np.testing.assert_array_equal(same, grey)


def test_affine_of_strength_0_is_the_identity():
    np.testing.assert_array_equal(augment.affine(0)(jax.random.key(0), IMAGE), IMAGE)
    hardly = jax.jit(augment.affine(1e-6))(jax.random.key(0), IMAGE)
    inside = np.s_[1:-1, 1:-1]
    np.testing.assert_allclose(hardly[inside], IMAGE[inside], atol=1e-4)


@pytest.mark.parametrize("size", [3, 4])
def test_cutout_is_a_square_around_any_pixel(size):
    found = views(augment.cutout(size), np.ones((8, 10, 3), np.float32), 2000)
    assert set(np.unique(found)) == {0, 1} and (found == found[..., :1]).all()
    blank = found[..., 0] == 0
    sides = blank.any(axis=2).sum(axis=1), blank.any(axis=1).sum(axis=1)
    assert (blank.sum(axis=(1, 2)) == sides[0] * sides[1]).all()  # a rectangle
    half = size // 2
    for length, side in zip((8, 10), sides, strict=True):
        centre, reach = np.arange(length), size - half
        wanted = np.minimum(centre + reach, length) - np.maximum(centre - half, 0)
        assert side.min() == wanted.min() and side.max() == size == wanted.max()
        assert abs(side.mean() - wanted.mean()) < 0.07  # sd of a side below 1


@dataclass(frozen=True)
class Noise:
    """Adds what its key gives, so that one sees which it was."""

    def __call__(self, key, image):
        return image + jax.random.uniform(key, image.shape)


@dataclass(frozen=True)
class Shift:
    """Can't be compared, for it holds an array."""

    by: np.ndarray

    def __call__(self, key, image):
        return image + self.by


def test_each_of_a_chain_has_a_key_of_its_own():
    zeros = np.zeros((2, 2, 1), np.float32)
    key = jax.random.key(0)
    twice = augment.chain(Noise(), Noise())(key, zeros)
    keys = jax.random.split(jax.random.key(0))
    first, second = (np.asarray(Noise()(k, zeros)) for k in keys)
    np.testing.assert_array_equal(twice, first + second)
    assert (first != second).all()
    assert augment.chain()(jax.random.key(0), zeros) is zeros


@pytest.mark.parametrize("name", EACH)
def test_shape_and_type_stay_and_jit_changes_nothing(name):
    for dtype in (jnp.float32, jnp.bfloat16):
        image = jnp.asarray(IMAGE, dtype)
        plain = EACH[name](jax.random.key(1), image)
        compiled = jax.jit(EACH[name])(jax.random.key(1), image)
        assert plain.shape == image.shape and plain.dtype == dtype == compiled.dtype
        error = 1e-6 if dtype == jnp.float32 else 1e-2
        plain, compiled = (np.asarray(a, np.float32) for a in (plain, compiled))
        np.testing.assert_allclose(plain, compiled, atol=error)
        assert plain.min() >= 0 and plain.max() <= 1


def test_equal_augmentations_are_one_and_different_ones_are_not():
    made = lambda: [
        *(augment.flip(), augment.flip(True), augment.crop(), augment.crop(3)),
        *(augment.colour(), augment.colour(0.1), augment.affine(), augment.affine(2)),
        *(augment.cutout(4), augment.cutout(5), augment.mixup(), augment.mixup(0.2)),
        augment.chain(augment.flip(), augment.crop()),
        augment.chain(augment.crop(), augment.flip()),
        augment.chain(),
    ]
    assert made() == made() and len({*made(), *made()}) == len(made())
    assert hash(augment.affine(1)) == hash(augment.affine(np.float32(1)))
    assert augment.crop(np.int64(4)) == augment.crop()


def test_a_sampler_with_an_equal_augmentation_is_compiled_once():
    images = RANDOM.random((9, 4, 4, 3), np.float32)
    sample = jax.jit(lambda sampler, key: sampler.sample(key))
    for brightness in (0.4, np.float64(0.4), 0.2):
        change = augment.chain(augment.flip(), augment.colour(brightness))
        sample(jm.tasks.umtra(images, ways=2, augment=change), jax.random.key(0))
    assert sample._cache_size() == 2


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_mixup_mixes_pairs_with_shares_of_a_beta_distribution(alpha):
    n = 400
    rows = np.eye(n, dtype=np.float32)  # so that each mixture says what it is made of
    batch = jm.Batch(rows, np.arange(n))
    mixed = jax.jit(augment.mixup(alpha))(jax.random.key(0), batch)
    x = np.asarray(mixed.x)
    np.testing.assert_allclose(x.sum(axis=1), 1, atol=1e-6)
    assert ((x > 0).sum(axis=1) <= 2).all()
    shares = np.diag(x)  # of the example whose label is kept
    assert shares.min() >= 0.5
    np.testing.assert_array_equal(mixed.y, batch.y)
    # E max(l, 1 - l) = 2 E [l; l > 1/2]; sd of the mean below 0.01
    assert abs(shares.mean() - (1 - betainc(alpha + 1, alpha, 0.5))) < 0.03
    others = np.count_nonzero(x - np.diag(shares), axis=0)
    assert others.max() == 1 and others.mean() > 0.9  # a permutation


def test_partners_are_a_uniform_permutation_of_those_that_count():
    counts = np.array([1, 0, 1, 1, 0]) > 0
    keys = jax.random.split(jax.random.key(0), 1200)
    found = jax.jit(jax.vmap(augment._partners, (0, None)))(keys, counts)
    orders, times = np.unique(
        np.asarray(found)[:, [0, 2, 3]], axis=0, return_counts=True
    )
    assert len(orders) == 6 and abs(times - 200).max() < 50  # sd 13
    assert (np.sort(found, axis=1) == np.arange(5)).all()


def test_mixup_keeps_padding_out():
    mask = np.float32([1, 0, 1, 1, 0])
    x = np.arange(1, 6, dtype=np.float32)[:, None]
    spoiled = np.where(mask[:, None] > 0, x, np.float32(np.nan))
    compiled = jax.jit(augment.mixup())
    mix = lambda x, mask: jax.device_get(
        compiled(jax.random.key(0), jm.Batch(x, np.arange(5), mask))
    )
    clean, found = mix(x, mask), mix(spoiled, mask)
    kept = np.array([0, 2, 3])
    np.testing.assert_array_equal(found.x[kept], clean.x[kept])
    assert (clean.x[kept] != x[kept]).any()
    np.testing.assert_array_equal(clean.x[[1, 4]], x[[1, 4]])
    np.testing.assert_array_equal(found.mask, mask)
    np.testing.assert_array_equal(mix(x, np.zeros_like(mask)).x, x)


def test_mixup_of_trees_and_of_numbers_as_targets():
    x = np.arange(8, dtype=np.float32)[:, None]
    batch = jm.Batch({"a": x, "b": np.reshape(2 * x, (8, 1, 1))}, 3 * x)
    mix = jax.jit(augment.mixup())
    mixed = jax.device_get(mix(jax.random.key(0), batch))
    np.testing.assert_allclose(2 * mixed.x["a"], mixed.x["b"][:, 0], rtol=1e-6)
    np.testing.assert_allclose(3 * mixed.x["a"], mixed.y, rtol=1e-6)
    assert (mixed.y != batch.y).any()
    assert mix(jax.random.key(0), jm.Batch(x)).y is None


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: augment.flip(1), "vertical: expected True or False, got 1"),
        (lambda: augment.crop(-1), "pad: expected a whole number >= 0, got -1"),
        (lambda: augment.colour(contrast=-1), "contrast: expected a number >= 0"),
        (lambda: augment.affine(np.nan), "strength: expected a number >= 0, got nan"),
        (lambda: augment.cutout(0), "size: expected a whole number >= 1, got 0"),
        (lambda: augment.mixup(0), "alpha: expected a number > 0, got 0"),
        (
            lambda: augment.chain(augment.flip(), 3),
            r"augmentations\[1\]: expected a function, got 3",
        ),
        (
            lambda: augment.chain(Shift(IMAGE)),
            r"augmentations\[0\]: expected a function that can be compared",
        ),
        (lambda: augment.flip()(KEY, PHOTO), "flip: .*uint8.*; divide by 255"),
        (lambda: augment.crop()(KEY, IMAGE[None]), "crop: .*one image at a time"),
        (
            lambda: augment.affine()(KEY, IMAGE[0]),
            r"affine: expected an image \[height",
        ),
        (lambda: augment.colour()(KEY, "x"), "colour: .*, got 'x'"),
        (lambda: augment.colour()(KEY, IMAGE[..., :2]), r"1 channel \(grey\) or 3"),
        (lambda: augment.crop(6)(KEY, IMAGE), "pad=6 reflects more .* < height"),
        (lambda: augment.cutout(7)(KEY, IMAGE), "size=7 does not fit"),
        (lambda: augment.flip()(0, IMAGE), "key: expected a typed key"),
        (lambda: augment.mixup()(KEY, IMAGE), r"mixup: expected a jm.Batch"),
        (
            lambda: augment.mixup()(KEY, jm.Batch(PHOTO)),
            "mixup: expected inputs that are floating numbers, .*uint8",
        ),
        (
            lambda: check_augment(lambda key, x: x[:2], example=PHOTO),
            r"keeps the shape and type of an example, got .*2, 6, 3.* of .*8, 6, 3.*",
        ),
        (
            lambda: check_augment(augment.crop(7), example=PHOTO),
            "crop: pad=7 reflects more",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


DATA = jm.data.from_arrays(
    RANDOM.integers(0, 256, (24, 6, 6, 3)).astype(np.uint8), np.arange(24) % 4
)
SAMPLERS = {
    "episodes": lambda **options: jm.tasks.episodes(DATA, 3, 1, 2, **options),
    "classes": lambda **options: jm.tasks.classes(DATA, 8, **options),
}
EITHER = pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)


@EITHER
def test_jitter_is_short_for_affine(make):
    short = make(jitter=0.7, rotations=True)
    long = make(augment=augment.affine(0.7), rotations=True)
    plain = make(rotations=True)
    a, b, c = (one_task(s, jax.random.key(3)) for s in (short, long, plain))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert (np.asarray(a.support.x) != np.asarray(c.support.x)).any()
    a, b = make(jitter=0.0), make(augment=augment.affine(0))
    a, b = (one_task(s, jax.random.key(3)) for s in (a, b))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_an_image_of_an_episode_is_turned_and_augmented_by_a_key_of_its_own():
    """As by hand, one after the other; the sampler does both sets at once."""
    lit = lambda key, image: image + jax.random.uniform(key)
    sampler = jm.tasks.episodes(DATA, 3, 1, 2, rotations=True, augment=lit)
    both = jax.jit(lambda s, key: (s.plan(jax.random.clone(key)), s.sample(key)))
    plan, task = both(sampler, jax.random.key(4))
    keys = jax.random.split(plan.key, (3, 3))
    light = np.asarray(jax.jit(jax.vmap(jax.vmap(jax.random.uniform)))(keys))
    turn = np.asarray(plan.turn)
    assert len(set(turn.tolist())) > 1
    for slots, batch in ((plan.support, task.support), (plan.query, task.query)):
        each = jax.device_get((slots.row, slots.place, slots.example, batch.x))
        for row, place, i, x in zip(*each, strict=True):
            by_hand = (
                np.rot90(DATA.x[i] / np.float32(255), turn[row]) + light[row, place]
            )
            np.testing.assert_allclose(x, by_hand, rtol=1e-6)


@EITHER
def test_images_of_a_sampler_are_augmented_each_by_itself_from_0_to_1(make):
    """Of support and query, after bytes are made numbers in 0..1."""
    plain = one_task(make(), jax.random.key(0))
    once = jax.jit(lambda sampler, key: sampler.sample(key))
    changed = once(make(augment=augment.cutout(2)), jax.random.key(0))
    for before, after in zip(plain, changed, strict=True):
        x, y = np.asarray(before.x), np.asarray(after.x)
        assert y.dtype == np.float32 and 0 < y.max() <= 1
        np.testing.assert_array_equal(y, np.where(y == 0, 0, x))
        np.testing.assert_array_equal(before.y, after.y)
    holes = (np.asarray(changed.query.x) == 0).all(axis=3)
    assert holes.any(axis=(1, 2)).all() and len(np.unique(holes, axis=0)) > 1
    once(make(augment=augment.cutout(2)), jax.random.key(0))
    assert once._cache_size() == 1


def test_a_function_of_ones_own_augments_examples_of_any_kind(blobs):
    noisy = lambda key, x: x + 0.1 * jax.random.normal(key, x.shape, x.dtype)
    plain, found = (
        one_task(jm.tasks.episodes(blobs, 3, 1, 2, augment=change), jax.random.key(0))
        for change in (None, noisy)
    )
    change = np.asarray(found.query.x) - np.asarray(plain.query.x)
    assert 0.05 < change.std() < 0.15


def test_whole_numbers_are_jittered():
    data = jm.data.from_arrays(np.full((8, 6, 6, 1), 9), np.arange(8) % 2)
    sampler = jm.tasks.episodes(data, 2, 1, 1, jitter=1.0)
    x = np.asarray(one_task(sampler, jax.random.key(0)).query.x)
    assert x.dtype == jnp.int32 and x[:, 2:4, 2:4].min() == 9


@EITHER
def test_augmentations_that_do_not_fit_are_refused_at_once(make):
    with pytest.raises(ValueError, match=r"jitter, augment: expected one .*jitter=0.5"):
        make(jitter=0.5, augment=augment.flip())
    with pytest.raises(ValueError, match="augment: expected a function, got 'flip'"):
        make(augment="flip")
    with pytest.raises(ValueError, match="cutout: a square of size=9 does not fit"):
        make(augment=augment.cutout(9))
    with pytest.raises(ValueError, match="keeps the shape and type"):
        make(augment=lambda key, x: x.astype(jnp.bfloat16))
