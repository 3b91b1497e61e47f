"""Minibatches of all classes of a data set, for learners that train as classifiers."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.boundary import to_float
from jaxmeta.checks import check_sizes
from jaxmeta.data.dataset import Dataset
from jaxmeta.tasks.augment import Augment, asked, rotate
from jaxmeta.tasks.plans import check_images
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "offsets", "counts"],
    meta_fields=["batch", "rotations", "augment"],
)
@dataclass(frozen=True)
class Classes:
    """A distribution over minibatches; labels are the numbers of the classes."""

    x: Any  # [examples, ...], class after class, an array or a pytree of arrays
    offsets: jax.Array  # [classes] where each class begins
    counts: jax.Array  # [classes]
    batch: int
    rotations: bool
    augment: Augment | None

    @property
    def classes(self) -> int:
        """How many classes there are, turned ones included."""
        return len(self.counts) * (4 if self.rotations else 1)

    def everything(self) -> Iterator[Batch]:
        """All examples once (each turn of them, not augmented), in minibatches of mixed
        classes; the last is padded."""
        turns = 4 if self.rotations else 1
        places = [
            (row, place, turn)
            for row, count in enumerate(np.asarray(self.counts))
            for place in range(count)
            for turn in range(turns)
        ]
        order = np.random.default_rng(0).permutation(len(places))
        extra = -len(places) % self.batch
        chosen = np.asarray(places)[np.concatenate([order, order[:1].repeat(extra)])]
        mask = np.arange(len(chosen)) < len(places)
        for part in range(0, len(chosen), self.batch):
            now = slice(part, part + self.batch)
            row, place, turn = chosen[now].T
            yield Batch(
                self._examples(row, place, turn),
                jnp.asarray(row * turns + turn),
                jnp.asarray(mask[now], jnp.float32),
            )

    def _examples(self, row, place, turn):
        example = self.offsets[row] + place
        x = jax.tree.map(lambda a: to_float(a[example]), self.x)
        if not self.rotations:
            return x
        return rotate(x, turn)

    def sample(self, key: jax.Array) -> Task:
        """One minibatch, x [batch, ...], y [batch]; support and query are the same."""
        key_class, key_example, key_jitter = jax.random.split(key, 3)
        y = jax.random.randint(key_class, (self.batch,), 0, self.classes)
        row, turn = (y // 4, y % 4) if self.rotations else (y, y)
        place = jax.random.uniform(key_example, (self.batch,)) * self.counts[row]
        place = jnp.minimum(place.astype(jnp.int32), self.counts[row] - 1)
        x = self._examples(row, place, turn)
        if self.augment is not None:
            x = jax.vmap(self.augment)(jax.random.split(key_jitter, self.batch), x)
        batch = Batch(x, y)
        return Task(batch, batch)


def classes(
    dataset: Dataset,
    batch: int = 64,
    *,
    rotations: bool = False,
    jitter: float = 0.0,
    augment: Augment | None = None,
) -> Classes:
    """Minibatches over all classes of a data set.

    For learners that the registry says train on "classes" (`baseline`, `simpleshot`,
    ...); make them with `classes=sampler.classes`.

    Args:
        dataset: examples by class, see `jaxmeta.data`.
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
    if dataset.records is not None:
        raise ValueError(
            f"dataset: {dataset.title} is of records; expected examples in memory, "
            "jm.data.from_arrays"
        )
    augment = asked(jitter, augment, dataset.example)
    x = jax.tree.map(jnp.asarray, dataset.x)
    offsets, counts = jnp.asarray(dataset.offsets), jnp.asarray(dataset.counts)
    return Classes(x, offsets, counts, batch, rotations, augment)
