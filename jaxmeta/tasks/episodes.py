"""Few-shot episodes over a class-major array that stays on the device.

Vinyals et al. Matching Networks for One Shot Learning. NeurIPS 2016, arXiv 1606.04080:
draw `ways` classes, then `shots` support and `queries` query examples of each.
Rotations by 90 degrees as extra classes: Santoro et al. 2016, arXiv 1605.06065.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxmeta.checks import check_sizes
from jaxmeta.data.dataset import Dataset
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["images", "counts"],
    meta_fields=["ways", "shots", "queries", "rotations", "jitter"],
)
@dataclass(frozen=True)
class Episodes:
    """A distribution over few-shot classification tasks."""

    images: jax.Array  # [classes, examples, ...]
    counts: jax.Array  # [classes] examples that a class has, the rest is padding
    ways: int
    shots: int
    queries: int
    rotations: bool
    jitter: float

    def sample(self, key: jax.Array) -> Task:
        """One episode: x [ways * shots, ...] in 0..1, y [ways * shots] in 0..ways-1,
        and `queries` a class likewise; classes in random order, examples class by class.
        """
        key_classes, key_examples, key_jitter = jax.random.split(key, 3)
        turns = 4 if self.rotations else 1
        chosen = _without_replacement(
            key_classes, self.ways, turns * self.images.shape[0]
        )
        classes, turn = chosen // turns, chosen % turns
        each = self.shots + self.queries
        examples = jax.vmap(_without_replacement, (0, None, None, 0))(
            jax.random.split(key_examples, self.ways),
            each,
            self.images.shape[1],
            self.counts[classes],
        )  # [ways, each]
        x = _to_float(self.images[classes[:, None], examples])
        if self.rotations:
            x = jax.vmap(_rotate)(x, turn)
        if self.jitter:
            keys = jax.random.split(key_jitter, (self.ways, each))
            x = jax.vmap(jax.vmap(partial(_jitter, strength=self.jitter)))(keys, x)

        def batch(x):
            labels = jnp.repeat(jnp.arange(self.ways), x.shape[1])
            return Batch(jnp.reshape(x, (-1, *x.shape[2:])), labels)

        return Task(batch(x[:, : self.shots]), batch(x[:, self.shots :]))


def episodes(
    dataset: Dataset,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    *,
    rotations: bool = False,
    jitter: float = 0.0,
) -> Episodes:
    """Few-shot classification tasks from a data set.

    Args:
        dataset: class-major examples, see `jaxmeta.data`.
        ways: classes of a task. shots: support examples of each class.
        queries: query examples of each class.
        rotations: turn images by 0, 90, 180, 270 degrees and take each turn of a class
            as a class of its own.
        jitter: strength of a random affine change of each image; 1 = rotation by up to
            15 degrees, scale and shear by up to 20 %, shift by up to 2.5 of 28 pixels.

    Returns: a sampler. Raises: ValueError for more ways than classes, or more
        shots + queries than the smallest class has examples.

    >>> import numpy as np, jaxmeta as jm
    >>> images = np.random.default_rng(0).random((60, 8, 8, 1))
    >>> data = jm.data.from_arrays(images, np.arange(60) % 6)
    >>> task = episodes(data, ways=5, shots=1, queries=3).sample(jax.random.key(0))
    >>> task.support.x.shape, task.query.y.shape
    ((5, 8, 8, 1), (15,))
    """
    check_sizes(ways=ways, shots=shots, queries=queries)
    classes = len(dataset.counts) * (4 if rotations else 1)
    if ways > classes:
        turned = " (with rotations)" if rotations else ""
        raise ValueError(
            f"ways: {ways} classes wanted, {dataset.title} has {classes}{turned}; "
            "lower ways or take a larger data set"
        )
    smallest = int(dataset.counts.argmin())
    if shots + queries > dataset.counts[smallest]:
        raise ValueError(
            f"shots + queries: {shots} + {queries} examples of each class wanted, class "
            f"{dataset.classes[smallest]!r} of {dataset.title} has "
            f"{dataset.counts[smallest]}; lower shots or queries"
        )
    if (rotations or jitter) and dataset.images.ndim != 5:
        raise ValueError(
            "rotations and jitter: expected images [height, width, channels], got "
            f"examples of shape {dataset.images.shape[2:]}"
        )
    if rotations and dataset.images.shape[2] != dataset.images.shape[3]:
        raise ValueError(
            f"rotations: expected square images, got {dataset.images.shape[2:4]}"
        )
    return Episodes(
        jnp.asarray(dataset.images),
        jnp.asarray(dataset.counts),
        ways,
        shots,
        queries,
        rotations,
        float(jitter),
    )


def _without_replacement(key, size, total, count=None):
    """`size` different numbers below `count` (or `total`), in random order.

    The largest of uniforms: several times faster than a permutation.
    """
    draws = jax.random.uniform(key, (total,))
    if count is not None:
        draws = jnp.where(jnp.arange(total) < count, draws, -1.0)
    return jax.lax.top_k(draws, size)[1]


def _to_float(images):
    if jnp.issubdtype(images.dtype, jnp.integer):
        return images.astype(jnp.float32) / 255
    return images


def _rotate(images, turn):
    """[n, h, h, c] turned by `turn` * 90 degrees."""
    turns = [lambda x, k=k: jnp.rot90(x, k, axes=(1, 2)) for k in range(4)]
    return jax.lax.switch(turn, turns, images)


def _jitter(key, image, strength):
    """A random affine map about the centre of an image [h, w, c], bilinear."""
    key_angle, key_shape, key_shift = jax.random.split(key, 3)
    height, width, _ = image.shape
    uniform = partial(jax.random.uniform, minval=-strength, maxval=strength)
    angle = uniform(key_angle) * jnp.deg2rad(15.0)
    shape = jnp.eye(2) + 0.2 * uniform(key_shape, (2, 2))  # scale and shear
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    shift = uniform(key_shift, (2,)) * 2.5 * height / 28
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    grid = jnp.stack([rows, columns], axis=-1) - jnp.reshape(centre, (1, 1, 2))
    source = grid @ (shape @ turn).T + jnp.reshape(centre + shift, (1, 1, 2))

    def channel(plane):
        places = [source[..., 0], source[..., 1]]
        return jax.scipy.ndimage.map_coordinates(plane, places, order=1)

    return jax.vmap(channel, in_axes=2, out_axes=2)(image)
