"""Minibatches of all classes of a data set, for learners that train as classifiers."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.batches import to_device
from jaxmeta.boundary import to_float
from jaxmeta.checks import check_sizes
from jaxmeta.data.dataset import Dataset
from jaxmeta.tasks.augment import Augment, asked, rotate
from jaxmeta.tasks.plain import one_program
from jaxmeta.tasks.plans import Plan, Slots, check_images
from jaxmeta.tasks.streamed import Streamed
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["offsets", "counts"],
    meta_fields=["batch", "rotations", "augment"],
)
@dataclass(frozen=True)
class Minibatches:
    """A distribution over plans of minibatches: which examples, without the examples."""

    offsets: jax.Array  # [classes] where each class begins
    counts: jax.Array  # [classes]
    batch: int
    rotations: bool
    augment: Augment | None

    @property
    def turns(self) -> int:
        """Classes that are made of one."""
        return 4 if self.rotations else 1

    @property
    def classes(self) -> int:
        """How many classes there are, turned ones included."""
        return len(self.counts) * self.turns

    def plan(self, key: jax.Array) -> Plan:
        """The plan of one minibatch, a pure function of its key; its query set is empty,
        since support and query are the same."""
        key_class, key_example, key_changes = jax.random.split(key, 3)
        y = jax.random.randint(key_class, (self.batch,), 0, self.classes)
        row, turn = y // self.turns, y % self.turns
        place = jax.random.uniform(key_example, (self.batch,)) * self.counts[row]
        place = jnp.minimum(place.astype(jnp.int32), self.counts[row] - 1)
        number = jnp.arange(self.batch)
        slots = Slots(self.offsets[row] + place, number, place, y, None)
        none = jax.tree.map(lambda a: a[:0], slots)
        return Plan(row, turn, slots, none, key_changes)

    def finish(self, plan: Plan, x_support: Any, x_query: Any) -> Task:
        """The minibatch of a plan and of its examples as they are stored."""
        del x_query  # of no example
        x = self.turned(x_support, plan.turn)
        if self.augment is not None:
            keys = jax.random.split(jax.random.clone(plan.key), self.batch)
            x = jax.vmap(self.augment)(keys, x)
        batch = Batch(x, plan.support.y)
        return Task(batch, batch)

    def turned(self, x: Any, turn: jax.Array) -> Any:
        """Examples as they are stored, as floats, turned by quarters."""
        x = jax.tree.map(to_float, x)
        return rotate(x, turn) if self.rotations else x

    def everything(self, read) -> Iterator[Batch]:
        """Each example in each turn once, not augmented, in minibatches of mixed classes;
        the last is padded. read: places in the data set -> examples as they are stored."""
        counts, offsets = np.asarray(self.counts), np.asarray(self.offsets)
        row = np.repeat(np.arange(len(counts)), counts * self.turns)
        example = np.repeat(np.arange(counts.sum()), self.turns)
        example += (offsets - (np.cumsum(counts) - counts))[row]
        turn = np.tile(np.arange(self.turns), counts.sum())
        order = np.random.default_rng(0).permutation(len(row))
        extra = -len(row) % self.batch
        chosen = np.concatenate([order, order[:1].repeat(extra)])
        mask = np.arange(len(chosen)) < len(row)
        for part in range(0, len(chosen), self.batch):
            now = slice(part, part + self.batch)
            here = chosen[now]
            x = jax.tree.map(jnp.asarray, read(example[here]))
            yield Batch(
                self.turned(x, jnp.asarray(turn[here])),
                jnp.asarray(row[here] * self.turns + turn[here]),
                jnp.asarray(mask[now], jnp.float32),
            )


@partial(jax.tree_util.register_dataclass, data_fields=["x", "planner"], meta_fields=[])
@dataclass(frozen=True)
class Classes:
    """A distribution over minibatches; labels are the numbers of the classes."""

    x: Any  # [examples, ...], class after class, an array or a pytree of arrays
    planner: Minibatches

    @property
    def classes(self) -> int:
        """How many classes there are, turned ones included."""
        return self.planner.classes

    def everything(self) -> Iterator[Batch]:
        """All examples once (each turn of them, not augmented), in minibatches of mixed
        classes; the last is padded."""
        return self.planner.everything(self._read)

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One minibatch, x [batch, ...], y [batch]; support and query are the same."""
        plan = self.planner.plan(key)
        return self.planner.finish(plan, self._read(plan.support.example), None)

    def _read(self, places) -> Any:
        return jax.tree.map(lambda a: a[places], self.x)


@dataclass(frozen=True, eq=False)
class StreamedClasses(Streamed):
    """`Classes` whose examples are records."""

    planner: Minibatches

    @property
    def classes(self) -> int:
        """How many classes there are, turned ones included."""
        return self.planner.classes

    def everything(self) -> Iterator[Batch]:
        """As that of `Classes`; each record is read once a turn."""
        return self.planner.everything(self.dataset.read)


def classes(
    dataset: Dataset,
    batch: int = 64,
    *,
    rotations: bool = False,
    jitter: float = 0.0,
    augment: Augment | None = None,
) -> Classes | StreamedClasses:
    """Minibatches over all classes of a data set.

    For learners that the registry says train on "classes" (`baseline`, `simpleshot`,
    ...); make them with `classes=sampler.classes`.

    Args:
        dataset: examples by class, see `jaxmeta.data`; of records (`from_records`), they
            are read when they are drawn.
        batch: examples of a minibatch, their classes drawn uniformly.
        rotations, jitter, augment: as in `episodes`.

    Returns: a sampler. Raises: ValueError for a batch below 1, or as `episodes`.

    >>> import numpy as np, jaxmeta as jm
    >>> data = jm.data.from_arrays(np.random.default_rng(0).random((60, 3)),
    ...                            np.arange(60) % 6)
    >>> sampler = classes(data, batch=8)
    >>> sampler.classes, sampler.sample(jax.random.key(0)).query.x.shape
    (6, (8, 3))
    """
    check_sizes(batch=batch)
    check_images(dataset, rotations, jitter)
    augment = asked(jitter, augment, dataset.example)
    offsets, counts = to_device(dataset.offsets), to_device(dataset.counts)
    planner = Minibatches(offsets, counts, int(batch), rotations, augment)
    if dataset.records is not None:
        return StreamedClasses(dataset, planner)
    return Classes(jax.tree.map(to_device, dataset.x), planner)
