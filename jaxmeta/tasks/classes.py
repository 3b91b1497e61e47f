"""Minibatches of all classes of a data set, for learners that train as classifiers."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxmeta.checks import check_sizes
from jaxmeta.data.dataset import Dataset
from jaxmeta.tasks.episodes import check_images, jittered, rotate, to_float
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["images", "counts"],
    meta_fields=["batch", "rotations", "jitter"],
)
@dataclass(frozen=True)
class Classes:
    """A distribution over minibatches; labels are the numbers of the classes."""

    images: jax.Array  # [classes, examples, ...]
    counts: jax.Array  # [classes]
    batch: int
    rotations: bool
    jitter: float

    @property
    def classes(self) -> int:
        """How many classes there are, turned ones included."""
        return len(self.counts) * (4 if self.rotations else 1)

    def sample(self, key: jax.Array) -> Task:
        """One minibatch, x [batch, ...], y [batch]; support and query are the same."""
        key_class, key_example, key_jitter = jax.random.split(key, 3)
        y = jax.random.randint(key_class, (self.batch,), 0, self.classes)
        row, turn = (y // 4, y % 4) if self.rotations else (y, None)
        place = jax.random.uniform(key_example, (self.batch,)) * self.counts[row]
        place = jnp.minimum(place.astype(jnp.int32), self.counts[row] - 1)
        x = to_float(self.images[row, place])
        if turn is not None:
            x = jax.vmap(lambda x, turn: rotate(x[None], turn)[0])(x, turn)
        if self.jitter:
            keys = jax.random.split(key_jitter, self.batch)
            x = jax.vmap(partial(jittered, strength=self.jitter))(keys, x)
        batch = Batch(x, y)
        return Task(batch, batch)


def classes(
    dataset: Dataset,
    batch: int = 64,
    *,
    rotations: bool = False,
    jitter: float = 0.0,
) -> Classes:
    """Minibatches over all classes of a data set.

    For learners that the registry says train on "classes" (`baseline`, `simpleshot`,
    ...); make them with `classes=sampler.classes`.

    Args:
        dataset: class-major examples, see `jaxmeta.data`.
        batch: examples of a minibatch, their classes drawn uniformly.
        rotations, jitter: as in `episodes`.

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
    images, counts = jnp.asarray(dataset.images), jnp.asarray(dataset.counts)
    return Classes(images, counts, batch, rotations, float(jitter))
