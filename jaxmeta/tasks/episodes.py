"""Few-shot episodes over arrays that stay on the device.

Vinyals et al. Matching Networks for One Shot Learning. NeurIPS 2016, arXiv 1606.04080:
draw `ways` classes, then `shots` support and `queries` query examples of each.
Rotations by 90 degrees as extra classes: Santoro et al. 2016, arXiv 1605.06065.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from jaxmeta import checks
from jaxmeta.batches import to_device
from jaxmeta.data.dataset import Dataset
from jaxmeta.tasks.augment import Augment
from jaxmeta.tasks.plain import one_program
from jaxmeta.tasks.plans import Plan, Planner, check_images, planned
from jaxmeta.tasks.sizes import MetaDataset, Range, fewest_and_most, sizes_of
from jaxmeta.tasks.streamed import Streamed
from jaxmeta.types import Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "planner"],
    meta_fields=["names"],
)
@dataclass(frozen=True)
class Episodes:
    """A distribution over few-shot classification tasks."""

    x: Any  # [examples, ...], class after class, an array or a pytree of arrays
    planner: Planner
    names: tuple[
        str, ...
    ] = ()  # of the classes of the data set, as `plan` numbers them

    @property
    def ways(self) -> int:
        """Classes of an episode, at most."""
        return self.planner.ways

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One episode: x [support, ...] in 0..1, y [support] in 0..ways-1, and a query
        set likewise; classes in random order, examples class by class. The support set
        ends with the unlabelled examples, if there are any. Where sizes vary, masks say
        what counts, padding at the end.
        """
        plan = self.planner.plan(key)
        take = lambda slots: jax.tree.map(lambda a: a[slots.example], self.x)
        return self.planner.finish(plan, take(plan.support), take(plan.query))

    def plan(self, key: jax.Array) -> Plan:
        """Which classes and examples `sample(key)` has: numbers in the data set."""
        return self.planner.plan(key)


def episodes(
    dataset: Dataset,
    ways: Range = 5,
    shots: Range = 1,
    queries: int = 15,
    *,
    imbalanced: bool = False,
    rotations: bool = False,
    jitter: float = 0.0,
    augment: Augment | None = None,
    within_groups: bool = False,
    unlabelled: int = 0,
    distractors: int = 0,
    label_noise: float = 0.0,
) -> Episodes | Streamed:
    """Few-shot classification tasks from a data set.

    Args:
        dataset: examples by class, see `jaxmeta.data`; of records (`from_records`), they
            are read when they are drawn, by `jm.fit` and `jm.evaluate`.
        ways: classes of a task, or (fewest, most): drawn uniformly for each task.
        shots: support examples of each class, or (fewest, most) likewise.
        queries: query examples of each class.
        imbalanced: draw the shots of each class by itself.
        rotations: turn images by 0, 90, 180, 270 degrees and take each turn of a class
            as a class of its own.
        jitter: strength of a random affine change of each image; 1 = rotation by up to
            15 degrees, scale and shear by up to 20 %, shift by up to 2.5 of 28 pixels.
        augment: another random change of each image, (key, image) -> image, see
            `jm.tasks.augment`.
        within_groups: draw all classes of a task from one group (the alphabet of a
            character), which is harder; groups with fewer classes are left out.
        unlabelled: additional support examples of each class, with the label `UNLABELLED`,
            for semi-supervised learners.
        distractors: additional classes of which only unlabelled examples are drawn.
        label_noise: probability that a support example has another label of the task.

    Returns: a sampler. With ranges, tasks are padded to the largest and masked, and a
        learner is made with the most `ways`.
    Raises: ValueError for more ways than classes, more examples wanted than the smallest
        class has, distractors without unlabelled examples, or no group that is large
        enough.

    >>> import numpy as np, jaxmeta as jm
    >>> images = np.random.default_rng(0).random((60, 8, 8, 1))
    >>> data = jm.data.from_arrays(images, np.arange(60) % 6)
    >>> task = episodes(data, ways=5, shots=1, queries=3).sample(jax.random.key(0))
    >>> task.support.x.shape, task.query.y.shape
    ((5, 8, 8, 1), (15,))
    >>> task = episodes(data, (2, 5), (1, 3), 2).sample(jax.random.key(0))
    >>> task.support.x.shape, int(task.support.mask.sum())
    ((15, 8, 8, 1), 3)
    """
    dataset, planner = planned(
        dataset,
        sizes_of(ways, shots, queries, imbalanced),
        rotations=rotations,
        jitter=jitter,
        augment=augment,
        within_groups=within_groups,
        unlabelled=unlabelled,
        distractors=distractors,
        label_noise=label_noise,
    )
    return _of(dataset, planner)


def meta_dataset(
    dataset: Dataset,
    *,
    ways: tuple[int, int] = (5, 50),
    most: int = 500,
    queries: int = 10,
    rotations: bool = False,
    jitter: float = 0.0,
    augment: Augment | None = None,
    within_groups: bool = False,
) -> Episodes | Streamed:
    """Tasks with Meta-Dataset's distribution of ways and shots: imbalanced, up to `most`
    support examples.

    Args:
        dataset: examples by class. ways: (fewest, most), uniform; the most is lowered to
            the data set's classes. most: support examples of a task, at most.
        queries: query examples of each class, at most. rotations, jitter, augment,
            within_groups: as in `episodes`.

    Returns: a sampler; its tasks are padded and masked. Source: Triantafillou et al. 2020,
        arXiv 1903.03096, section 3.2, and the authors' code.
    Raises: as `episodes`.
    """
    check_images(dataset, rotations, jitter)
    low, high = fewest_and_most(2, ways=ways)
    high = min(high, len(dataset.counts) * (4 if rotations else 1))
    checks.check_sizes(low, ways=high)
    checks.check_sizes(queries=queries)
    checks.check_sizes(high, most=most)
    dataset, planner = planned(
        dataset,
        MetaDataset((low, high), most, queries=queries),
        rotations=rotations,
        jitter=jitter,
        augment=augment,
        within_groups=within_groups,
    )
    return _of(dataset, planner)


def _of(dataset: Dataset, planner: Planner) -> Episodes | Streamed:
    """The sampler, of arrays on the device or of records that are read when drawn."""
    if dataset.records is not None:
        return Streamed(dataset, planner)
    return Episodes(jax.tree.map(to_device, dataset.x), planner, dataset.classes)
