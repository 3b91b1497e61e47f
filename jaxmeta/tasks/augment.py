"""Augmentations: random changes of one image, pure functions of a key.

Each is `(key, image) -> image`, image [height, width, channels], floating in 0..1, of the
same shape and type after; `jax.vmap` it over keys and images. Equal ones compare equal,
so that a sampler which holds one is compiled once. `mixup` is a change of a batch.

Flips, pad and crop: He et al. 2015, arXiv 1512.03385, section 4.2. Cutout: DeVries &
Taylor 2017, arXiv 1708.04552. Mixup: Zhang et al. 2018, arXiv 1710.09412.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks
from jaxmeta.batches import examples, of_examples
from jaxmeta.boundary import to_float
from jaxmeta.types import Batch, PyTree

Augment = Callable[[jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True)
class Flip:
    """See `flip`."""

    vertical: bool

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """The image, or its mirror image."""
        _check_image("flip", key, image)
        flipped = jnp.flip(image, axis=0 if self.vertical else 1)
        return jnp.where(jax.random.bernoulli(key), flipped, image)


def flip(vertical: bool = False) -> Flip:
    """Mirror an image with probability 1/2.

    Args: vertical: upside down instead of left to right; for both chain two.
    Returns: an augmentation. Raises: ValueError for anything but True or False.

    >>> image = jnp.array([[0.0, 0.5, 1.0]])[..., None]
    >>> views = jax.vmap(flip(), (0, None))(jax.random.split(jax.random.key(0), 40), image)
    >>> sorted({tuple(row) for row in views[:, 0, :, 0].tolist()})
    [(0.0, 0.5, 1.0), (1.0, 0.5, 0.0)]
    """
    checks.check_flags(vertical=vertical)
    return Flip(bool(vertical))


@dataclass(frozen=True)
class Crop:
    """See `crop`."""

    pad: int

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """A window of the padded image, as large as the image."""
        _check_image("crop", key, image)
        if min(image.shape[:2]) <= self.pad:
            raise ValueError(
                f"crop: pad={self.pad} reflects more than there is of an image of shape "
                f"{image.shape}; expected pad < height and width"
            )
        sides = (self.pad, self.pad)
        padded = jnp.pad(image, (sides, sides, (0, 0)), mode="reflect")
        row, column = jax.random.randint(key, (2,), 0, 2 * self.pad + 1)
        return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


def crop(pad: int = 4) -> Crop:
    """Shift an image by up to `pad` pixels: the usual "pad and crop".

    The image is padded on all sides by reflection (its border is not repeated), then a
    window of its own size is cut out anywhere, all (2 pad + 1)^2 places equally likely.

    Departures: He et al. pad with zeros.

    Args: pad: pixels on each side; 0 = no change.
    Returns: an augmentation.
    Raises: ValueError for no whole number >= 0; when called, for an image that is not
        larger than `pad`.

    >>> image = jnp.arange(3.0)[:, None, None] * jnp.ones((1, 3, 1)) / 2
    >>> views = jax.vmap(crop(1), (0, None))(jax.random.split(jax.random.key(0), 40), image)
    >>> sorted({tuple(column) for column in views[:, :, 0, 0].tolist()})
    [(0.0, 0.5, 1.0), (0.5, 0.0, 0.5), (0.5, 1.0, 0.5)]
    """
    checks.check_sizes(0, pad=pad)
    return Crop(int(pad))


@dataclass(frozen=True)
class Colour:
    """See `colour`."""

    brightness: float
    contrast: float
    saturation: float

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """The image, lighter or darker, flatter or harder, greyer or more colourful."""
        _check_image("colour", key, image)
        if image.shape[2] not in (1, 3):
            raise ValueError(
                "colour: expected images of 1 channel (grey) or 3 (red, green, blue), "
                f"got shape {image.shape}"
            )
        key_brightness, key_contrast, key_saturation = jax.random.split(key, 3)
        black = jnp.zeros_like(image)
        image = _blend(key_brightness, self.brightness, image, black)
        mean = jnp.full_like(image, jnp.mean(_grey(image)))
        image = _blend(key_contrast, self.contrast, image, mean)
        if image.shape[2] == 1:
            return image
        grey = jnp.broadcast_to(_grey(image), image.shape)
        return _blend(key_saturation, self.saturation, image, grey)


def colour(
    brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4
) -> Colour:
    """Change brightness, contrast and saturation, in this order.

    Each is a blend, f image + (1 - f) other, clipped to 0..1, with f uniform in
    max(0, 1 - s)..1 + s for a strength s; other = black for brightness, the mean of the
    image's grey values for contrast, each pixel's grey value for saturation. Grey is
    0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601). Source: torchvision, ColorJitter.

    Departures: torchvision takes the three in random order, and can turn the hue.

    Args: brightness, contrast, saturation: strengths s; 0 = no change. Grey images (one
        channel) have no saturation.
    Returns: an augmentation.
    Raises: ValueError for a negative strength; when called, for images of other than 1 or
        3 channels.

    >>> image = jnp.full((2, 2, 1), 0.5)  # flat, so only its brightness changes
    >>> views = jax.vmap(colour(0.2), (0, None))(
    ...     jax.random.split(jax.random.key(0), 1000), image)
    >>> f"{views.min():.2f} to {views.max():.2f}"
    '0.40 to 0.60'
    """
    strengths = {"brightness": brightness, "contrast": contrast}
    checks.check_numbers(least=0, **strengths, saturation=saturation)
    return Colour(float(brightness), float(contrast), float(saturation))


def _blend(key, strength, image, other):
    """f image + (1 - f) other for a random f, clipped to 0..1."""
    low, high = max(0.0, 1 - strength), 1 + strength
    f = jax.random.uniform(key, minval=low, maxval=high).astype(image.dtype)
    return jnp.clip(f * image + (1 - f) * other, 0, 1)


def _grey(image):
    """[h, w, 1] luma of [h, w, 1 or 3]."""
    if image.shape[2] == 1:
        return image
    weights = jnp.array([[[0.299, 0.587, 0.114]]], image.dtype)
    return jnp.sum(image * weights, axis=2, keepdims=True)


@dataclass(frozen=True)
class Affine:
    """See `affine`."""

    strength: float

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """The image, moved a little."""
        _check_image("affine", key, image, whole=True)  # `jitter` takes them too
        return jittered(key, image, self.strength) if self.strength else image


def affine(strength: float = 1.0) -> Affine:
    """Turn, stretch, shear and shift an image a little; the `jitter` of `episodes`.

    Bilinear, about the centre; what comes from outside the image is 0. Whole numbers are
    rounded.

    Args: strength: 1 = rotation by up to 15 degrees, scale and shear by up to 20 %, shift
        by up to 2.5 of 28 pixels, all uniform; 0 = no change.
    Returns: an augmentation. Raises: ValueError for a negative strength.

    >>> image = jnp.zeros((28, 28, 1)).at[10:18, 10:18].set(1.0)
    >>> moved = affine()(jax.random.key(0), image)
    >>> moved.shape, bool((moved == image).all())
    ((28, 28, 1), False)
    """
    checks.check_numbers(least=0, strength=strength)
    return Affine(float(strength))


@dataclass(frozen=True)
class Cutout:
    """See `cutout`."""

    size: int

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """The image with a black square."""
        _check_image("cutout", key, image)
        if self.size > min(image.shape[:2]):
            raise ValueError(
                f"cutout: a square of size={self.size} does not fit into an image of "
                f"shape {image.shape}; expected size <= height and width"
            )
        key_row, key_column = jax.random.split(key)

        def within(key, length):
            first = jax.random.randint(key, (), 0, length) - self.size // 2
            places = jnp.arange(length)
            return (places >= first) & (places < first + self.size)

        rows = within(key_row, image.shape[0])[:, None, None]
        columns = within(key_column, image.shape[1])[None, :, None]
        return jnp.where(rows & columns, 0, image).astype(image.dtype)


def cutout(size: int) -> Cutout:
    """Blank a square (DeVries & Taylor 2017, arXiv 1708.04552).

    Its centre is uniform over the pixels, and what reaches beyond the border is cut off.

    Departures: the square is black, in images of 0..1; the authors' images are normalised
    by then, and their zeros are the mean colour. Theirs is one pixel smaller if the size
    is odd.

    Args: size: pixels of a side (the paper: 16 of 32 for CIFAR-10, 8 for CIFAR-100).
    Returns: an augmentation.
    Raises: ValueError for no whole number >= 1; when called, for an image that is smaller.

    >>> views = jax.vmap(cutout(3), (0, None))(
    ...     jax.random.split(jax.random.key(0), 40), jnp.ones((5, 5, 1)))
    >>> sorted({int(25 - view.sum()) for view in views})  # corner, side, inside
    [4, 6, 9]
    """
    checks.check_sizes(size=size)
    return Cutout(int(size))


@dataclass(frozen=True)
class Chain:
    """See `chain`."""

    augmentations: tuple[Augment, ...]

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """The image, changed by one after the other."""
        checks.check_key(key)
        if not self.augmentations:
            return image
        keys = jax.random.split(key, len(self.augmentations))
        for one, augment in zip(keys, self.augmentations, strict=True):
            image = augment(one, image)
        return image


def chain(*augmentations: Augment) -> Chain:
    """Several augmentations, one after the other, each with a key of its own.

    Args: augmentations: of this module, or any functions (key, image) -> image; none =
        no change.
    Returns: an augmentation, equal to one of equal parts in the same order.
    Raises: ValueError for what is no function, or can't be compared.

    >>> view = chain(crop(2), flip(), colour())
    >>> view == chain(crop(2), flip(), colour())
    True
    >>> view(jax.random.key(0), jnp.ones((8, 8, 3))).shape
    (8, 8, 3)
    """
    for number, augment in enumerate(augmentations):
        check_augment(augment, f"augmentations[{number}]")
    return Chain(augmentations)


@dataclass(frozen=True)
class Mixup:
    """See `mixup`."""

    alpha: float

    def __call__(self, key: jax.Array, batch: Batch) -> Batch:
        """The batch, each of its examples mixed with another."""
        checks.check_key(key)
        checks.check_kind(batch, Batch, "mixup")
        checks.check_batch(batch, "mixup")
        _check_floating(batch)
        n = examples(batch)
        counts = jnp.ones(n, bool) if batch.mask is None else batch.mask > 0
        key_partners, key_shares = jax.random.split(key)
        partners = _partners(key_partners, counts)
        share = jax.random.beta(key_shares, self.alpha, self.alpha, (n,))
        share = jnp.maximum(share, 1 - share)  # the label is that of the larger one

        def mixed(a):
            rows = (-1,) + (1,) * (a.ndim - 1)
            part = jnp.reshape(share, rows).astype(a.dtype)
            both = part * a + (1 - part) * a[partners]
            return jnp.where(jnp.reshape(counts, rows), both, a)

        numbers = lambda a: mixed(a) if checks.is_floating(a) else a  # labels stay
        y = jax.tree.map(numbers, batch.y)
        return Batch(of_examples(mixed, batch.x), y, batch.mask)


def mixup(alpha: float = 1.0) -> Mixup:
    """Mix pairs of examples of a batch (Zhang et al. 2018, arXiv 1710.09412).

    x' = l x + (1 - l) x[partner], with l ~ Beta(alpha, alpha) for each example; partners
    are a random permutation. Examples that don't count (mask 0) stay as they are, and are
    partners of none that does.

    Departures: the paper mixes the labels as the inputs; losses of labels take one class
    an example, so l is max(l, 1 - l) and the label is that of the larger share. Targets
    that are floating numbers are mixed. The authors' code draws one l a minibatch.

    Args: alpha: how strongly; towards 0 hardly at all, 1 = l uniform (the paper: 1 for
        CIFAR-10, 0.1 to 0.4 for ImageNet).
    Returns: a function (key, batch) -> batch, of a support set or a minibatch.
    Raises: ValueError for no number > 0; when called, for what is no batch, or has inputs
        that are not floating numbers.

    >>> import jaxmeta as jm
    >>> x, mask = jnp.array([[0.0], [1.0], [9.0]]), jnp.array([1, 1, 0])
    >>> batch = jm.Batch(x, jnp.arange(3), mask)
    >>> mixed = mixup()(jax.random.key(0), batch)
    >>> float(mixed.x[0, 0]) <= 0.5 <= float(mixed.x[1, 0]), float(mixed.x[2, 0])
    (True, 9.0)
    """
    checks.check_positive(alpha=alpha)
    return Mixup(float(alpha))


def _partners(key, counts):
    """[n] a random permutation of those that count; the others keep their places."""
    draws = jnp.where(counts, jax.random.uniform(key, counts.shape), 2.0)
    order = jnp.argsort(draws, stable=True)  # those that count, in random order
    places = jnp.argsort(~counts, stable=True)  # the same in their own
    return jnp.zeros_like(order).at[places].set(order)


def _check_floating(batch: Batch) -> None:
    def check(a):
        if not checks.is_floating(a):
            raise ValueError(
                f"mixup: expected inputs that are floating numbers, got {checks.said(a)}"
                "; images: x / 255"
            )
        return a

    of_examples(check, batch.x)


def _check_image(name: str, key, image, whole: bool = False) -> None:
    """Raise ValueError unless it is one key and one image.

    whole: whether whole numbers will do.
    """
    checks.check_key(key)
    shape, known = getattr(image, "shape", ()), hasattr(image, "dtype")
    if len(shape) == 3 and known and (whole or checks.is_floating(image)):
        return
    hint = ""
    if known and image.dtype == jnp.uint8:
        hint = "; divide by 255, as samplers do"
    elif len(shape) == 4:
        hint = "; one image at a time: use jax.vmap over keys and images"
    raise ValueError(
        f"{name}: expected an image [height, width, channels], floating in 0..1, got "
        f"{checks.said(image)}{hint}"
    )


def check_augment(augment, argument: str = "augment", example: PyTree = None) -> None:
    """Raise ValueError unless it is a function (key, example) -> example that can be
    compared, and keeps the example's shape and type.

    Args: augment; argument: its name; example: one as a data set has it, None = unknown.
    """
    checks.check_functions(**{argument: augment})
    try:
        hash(augment)
    except TypeError as error:
        raise ValueError(
            f"{argument}: expected a function that can be compared, or each call would "
            f"compile anew, got {checks.said(augment)} ({error}); e.g. a frozen dataclass"
        ) from error
    if example is None:
        return
    one = jax.eval_shape(
        partial(jax.tree.map, lambda a: to_float(jnp.asarray(a))), example
    )
    found = jax.eval_shape(lambda x: augment(jax.random.key(0), x), one)
    said = lambda tree: [(a.shape, str(a.dtype)) for a in jax.tree.leaves(tree)]
    if jax.tree.structure(found) != jax.tree.structure(one) or said(found) != said(one):
        raise ValueError(
            f"{argument}: expected a function that keeps the shape and type of an example, "
            f"got {said(found)} of {said(one)}"
        )


def asked(jitter: float, augment: Augment | None, example: PyTree) -> Augment | None:
    """What `jitter` and `augment` of a sampler ask for; None = nothing.

    Raises: ValueError for both at once, or as `check_augment`.
    """
    if augment is None:
        return affine(jitter) if jitter else None
    if jitter:
        raise ValueError(
            f"jitter, augment: expected one of the two, got jitter={jitter:g} and "
            f"{checks.said(augment)}; both: augment=chain(affine({jitter:g}), ...)"
        )
    check_augment(augment, example=example)
    return augment


def rotate(images: jax.Array, turn: jax.Array) -> jax.Array:
    """Images [n, h, h, c], each turned by `turn` [n] times 90 degrees.

    One gather of pixels: four times faster on a CPU than to turn each in all ways.
    """
    n, side = images.shape[:2]
    places = np.arange(side * side).reshape(side, side)
    order = jnp.asarray(np.stack([np.rot90(places, k).ravel() for k in range(4)]))
    pixels = jnp.reshape(images, (n, side * side, -1))
    turned = jnp.take_along_axis(pixels, order[turn][:, :, None], axis=1)
    return jnp.reshape(turned, images.shape)


def jittered(key, image, strength):
    """A random affine map about the centre of an image [h, w, c], bilinear."""
    key_angle, key_shape, key_shift = jax.random.split(key, 3)
    height = image.shape[0]
    uniform = partial(jax.random.uniform, minval=-strength, maxval=strength)
    angle = uniform(key_angle) * jnp.deg2rad(15.0)
    shape = jnp.eye(2) + 0.2 * uniform(key_shape, (2, 2))  # scale and shear
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    shift = uniform(key_shift, (2,)) * 2.5 * height / 28
    return warped(image, shape @ turn, shift)


def warped(image, matrix, shift):
    """An image [h, w, c] whose place p from the centre is what was at matrix p + shift:
    matrix [2, 2] and shift [2] of (row, column), bilinear, 0 outside."""
    height, width, _ = image.shape
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    grid = jnp.stack([rows, columns], axis=-1) - jnp.reshape(centre, (1, 1, 2))
    source = grid @ matrix.T + jnp.reshape(centre + shift, (1, 1, 2))

    def channel(plane):
        places = [source[..., 0], source[..., 1]]
        return jax.scipy.ndimage.map_coordinates(plane, places, order=1)

    return jax.vmap(channel, in_axes=2, out_axes=2)(image)
