"""Few-shot episodes over a class-major array that stays on the device.

Vinyals et al. Matching Networks for One Shot Learning. NeurIPS 2016, arXiv 1606.04080:
draw `ways` classes, then `shots` support and `queries` query examples of each.
Rotations by 90 degrees as extra classes: Santoro et al. 2016, arXiv 1605.06065.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks
from jaxmeta.boundary import to_float
from jaxmeta.data.dataset import Dataset
from jaxmeta.types import UNLABELLED, Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["images", "counts", "groups"],
    meta_fields=[
        *("ways", "shots", "queries", "rotations", "jitter"),
        *("unlabelled", "distractors"),
    ],
)
@dataclass(frozen=True)
class Episodes:
    """A distribution over few-shot classification tasks."""

    images: Any  # [classes, examples, ...], an array or a pytree of arrays
    counts: jax.Array  # [classes] examples that a class has, the rest is padding
    groups: (
        jax.Array | None
    )  # [classes] number of its group; None: any classes together
    ways: int
    shots: int
    queries: int
    rotations: bool
    jitter: float
    unlabelled: int
    distractors: int

    def sample(self, key: jax.Array) -> Task:
        """One episode: x [ways * shots, ...] in 0..1, y [ways * shots] in 0..ways-1,
        and `queries` a class likewise; classes in random order, examples class by class.
        The support set ends with the unlabelled examples, if there are any.
        """
        key_classes, key_examples, key_jitter = jax.random.split(key, 3)
        turns = 4 if self.rotations else 1
        chosen = self._choose(key_classes, turns)
        classes, turn = chosen // turns, chosen % turns
        each = self.shots + self.queries + self.unlabelled
        examples = jax.vmap(without_replacement, (0, None, None, 0))(
            jax.random.split(key_examples, len(chosen)),
            each,
            jax.tree.leaves(self.images)[0].shape[1],
            self.counts[classes],
        )  # [ways + distractors, each]
        take = lambda a: to_float(a[classes[:, None], examples])
        x = jax.tree.map(take, self.images)
        if self.rotations:
            x = jax.vmap(rotate)(x, turn)
        if self.jitter:
            keys = jax.random.split(key_jitter, (len(chosen), each))
            x = jax.vmap(jax.vmap(partial(jittered, strength=self.jitter)))(keys, x)

        def batch(labels, first, last=None):
            part = lambda a: a[: len(labels), first:last]
            flat = lambda a: jnp.reshape(part(a), (-1, *a.shape[2:]))
            number = (each if last is None else last) - first
            return Batch(jax.tree.map(flat, x), jnp.repeat(labels, number))

        labels, own = jnp.arange(self.ways), self.shots + self.queries
        support = batch(labels, 0, self.shots)
        query = batch(labels, self.shots, own)
        if self.unlabelled:
            hidden = batch(jnp.full(len(chosen), UNLABELLED), own)
            support = jax.tree.map(
                lambda a, b: jnp.concatenate([a, b]), support, hidden
            )
        return Task(support, query)

    def _choose(self, key, turns):
        """[ways + distractors] different classes, or classes of one group."""
        size, total = self.ways + self.distractors, len(self.counts)
        if self.groups is None:
            return without_replacement(key, size, turns * total)
        key_group, key = jax.random.split(key)
        # a group is drawn with as many chances as it has classes
        anchor = self.groups[jax.random.randint(key_group, (), 0, total)]
        member = jnp.repeat(self.groups == anchor, turns)
        draws = jnp.where(member, jax.random.uniform(key, member.shape), -1.0)
        return jax.lax.top_k(draws, size)[1]


def episodes(
    dataset: Dataset,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    *,
    rotations: bool = False,
    jitter: float = 0.0,
    within_groups: bool = False,
    unlabelled: int = 0,
    distractors: int = 0,
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
        within_groups: draw all classes of a task from one group (the alphabet of a
            character), which is harder; groups with fewer classes are left out.
        unlabelled: additional support examples of each class, with the label `UNLABELLED`,
            for semi-supervised learners.
        distractors: additional classes of which only unlabelled examples are drawn.

    Returns: a sampler. Raises: ValueError for more ways than classes, more examples
        wanted than the smallest class has, distractors without unlabelled examples, or
        no group that is large enough.

    >>> import numpy as np, jaxmeta as jm
    >>> images = np.random.default_rng(0).random((60, 8, 8, 1))
    >>> data = jm.data.from_arrays(images, np.arange(60) % 6)
    >>> task = episodes(data, ways=5, shots=1, queries=3).sample(jax.random.key(0))
    >>> task.support.x.shape, task.query.y.shape
    ((5, 8, 8, 1), (15,))
    """
    check_images(dataset, rotations, jitter)
    checks.check_sizes(2, ways=ways)
    checks.check_sizes(shots=shots, queries=queries)
    checks.check_sizes(0, unlabelled=unlabelled, distractors=distractors)
    checks.check_flags(within_groups=within_groups)
    if distractors and not unlabelled:
        raise ValueError(
            "unlabelled, distractors: expected numbers >= 0, and unlabelled >= 1 with "
            f"distractors, got {unlabelled} and {distractors}"
        )
    groups = None
    if within_groups:
        dataset, groups = _large_groups(dataset, ways + distractors, rotations)
    classes = len(dataset.counts) * (4 if rotations else 1)
    if ways + distractors > classes:
        turned = " (with rotations)" if rotations else ""
        more = f" and {distractors} distractors" if distractors else ""
        raise ValueError(
            f"ways: {ways} classes{more} wanted, {dataset.title} has {classes}{turned}; "
            "lower ways or take a larger data set"
        )
    smallest = int(dataset.counts.argmin())
    if shots + queries + unlabelled > dataset.counts[smallest]:
        more = f" + {unlabelled} unlabelled" if unlabelled else ""
        raise ValueError(
            f"shots + queries: {shots} + {queries}{more} examples of each class wanted, "
            f"class {dataset.classes[smallest]!r} of {dataset.title} has "
            f"{dataset.counts[smallest]}; lower shots or queries"
        )
    return Episodes(
        jax.tree.map(jnp.asarray, dataset.images),
        jnp.asarray(dataset.counts),
        groups,
        ways,
        shots,
        queries,
        rotations,
        float(jitter),
        unlabelled,
        distractors,
    )


def check_images(dataset: Dataset, rotations: bool, jitter: float) -> None:
    """Raise ValueError if it is no data set, or not of images that can be turned."""
    if not isinstance(dataset, Dataset):
        raise ValueError(
            "dataset: expected a data set, e.g. jm.data.from_arrays(images, labels), got "
            f"{type(dataset).__name__}"
        )
    checks.check_flags(rotations=rotations)
    checks.check_numbers(least=0, jitter=jitter)
    shapes = [a.shape[2:] for a in jax.tree.leaves(dataset.images)]
    if (rotations or jitter) and (len(shapes) > 1 or len(shapes[0]) != 3):
        raise ValueError(
            "rotations and jitter: expected images [height, width, channels], got "
            f"examples of shape {shapes[0] if len(shapes) == 1 else shapes}"
        )
    if rotations and dataset.images.shape[2] != dataset.images.shape[3]:
        raise ValueError(
            f"rotations: expected square images, got {dataset.images.shape[2:4]}"
        )


def _large_groups(dataset: Dataset, size: int, rotations: bool):
    """The classes of groups with at least `size`, and a group number for each."""
    turns = 4 if rotations else 1
    names, number, counts = np.unique(
        dataset.groups, return_inverse=True, return_counts=True
    )
    keep = np.flatnonzero(turns * counts[number] >= size)
    if names.tolist() == [""] or not len(keep):
        largest = f"the largest has {turns * counts.max()}" if any(names) else "none"
        raise ValueError(
            f"within_groups: {size} classes of one group wanted, {dataset.title} has no "
            f"such group ({largest}); lower ways, or take a data set with groups"
        )
    return dataset.select(keep.tolist(), dataset.split), jnp.asarray(number[keep])


def without_replacement(key, size, total, count=None):
    """`size` different numbers below `count` (or `total`), in random order.

    The largest of uniforms: several times faster than a permutation.
    """
    draws = jax.random.uniform(key, (total,))
    if count is not None:
        draws = jnp.where(jnp.arange(total) < count, draws, -1.0)
    return jax.lax.top_k(draws, size)[1]


def rotate(images, turn):
    """[n, h, h, c] turned by `turn` * 90 degrees."""
    turns = [lambda x, k=k: jnp.rot90(x, k, axes=(1, 2)) for k in range(4)]
    return jax.lax.switch(turn, turns, images)


def jittered(key, image, strength):
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
