"""Image completion: a task is an image, its examples are pixels.

Garnelo et al. Conditional Neural Processes. ICML 2018, arXiv 1807.01613, section 4.2:
regression from a pixel's place in [0, 1]^2 to its intensities in [0, 1], from some pixels
at random to the whole image.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.boundary import to_float
from jaxmeta.checks import check_sizes, said
from jaxmeta.data.arrays import to_images
from jaxmeta.tasks.plain import one_program
from jaxmeta.tasks.plans import without_replacement
from jaxmeta.tasks.sizes import fewest_and_most
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["images"],
    meta_fields=["shots", "queries"],
)
@dataclass(frozen=True)
class ImageCompletion:
    """A distribution over images."""

    images: jax.Array  # [examples, height, width, channels]
    shots: tuple[int, int]  # (fewest, most)
    queries: int | None

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One image: x [shots, 2] (row, column) in 0..1, y [shots, channels]; of a varying
        number of support pixels the most, and a mask. No pixel twice in a set."""
        key_image, key_pixels, key_shots = jax.random.split(key, 3)
        number = jax.random.randint(key_image, (), 0, len(self.images))
        image = to_float(self.images[number])
        height, width, channels = image.shape
        x, y = _places(height, width), jnp.reshape(image, (-1, channels))

        fewest, most = self.shots
        drawn = most + (self.queries or 0)
        pixels = without_replacement(key_pixels, drawn, height * width)
        support = Batch(x[pixels[:most]], y[pixels[:most]])
        if fewest < most:
            size = jax.random.randint(key_shots, (), fewest, most + 1)
            support = support._replace(mask=(jnp.arange(most) < size).astype(x.dtype))
        if self.queries is None:
            return Task(support, Batch(x, y))
        return Task(support, Batch(x[pixels[most:]], y[pixels[most:]]))


def image_completion(
    images: Any,
    shots: int | tuple[int, int] = (3, 100),
    queries: int | None = None,
) -> ImageCompletion:
    """Tasks that are images: regression from places of pixels to their intensities.

    Args:
        images: [examples, height, width, channels], uint8 in 0..255 or floating in 0..1.
        shots: support pixels of a task, or (fewest, most) of them, padded to the most.
        queries: query pixels of a task, none of them in the support set; None = all pixels
            of the image, in rows, those of the support set among them.

    Returns: a sampler. Raises: ValueError for what are no images, NaN, sizes below 1, or
        more pixels than an image has.

    >>> images = np.random.default_rng(0).random((20, 8, 8, 3), np.float32)
    >>> task = image_completion(images, shots=(3, 10)).sample(jax.random.key(0))
    >>> task.support.x.shape, task.support.mask.shape, task.query.y.shape
    ((10, 2), (10,), (64, 3))
    """
    images = to_images(images, "images")
    whole = images.dtype.kind in "iu" and images.dtype != np.uint8
    if images.ndim != 4 or not len(images) or whole:
        raise ValueError(
            "images: expected [examples, height, width, channels], uint8 or floating, got "
            f"{said(images)}"
        )
    fewest, most = fewest_and_most(1, shots=shots)
    if queries is not None:
        check_sizes(queries=queries)
    pixels = images.shape[1] * images.shape[2]
    if most + (queries or 0) > pixels:
        more = "" if queries is None else f" + {queries}"
        raise ValueError(
            f"shots + queries: {most}{more} pixels wanted, an image has {pixels}; lower "
            "shots or queries"
        )
    return ImageCompletion(jnp.asarray(images), (fewest, most), queries)


def _places(height, width):
    """[height * width, 2] (row, column) of each pixel, the first 0, the last 1."""
    rows, columns = jnp.linspace(0, 1, height), jnp.linspace(0, 1, width)
    grid = jnp.meshgrid(rows, columns, indexing="ij")
    return jnp.stack([jnp.ravel(a) for a in grid], axis=1)
