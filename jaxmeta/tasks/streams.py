"""Streams of classes: learn them one after the other, remember what was known before.

Javed, White. Meta-Learning Representations for Continual Learning. NeurIPS 2019, arXiv
1905.12588, section 3; Beaulieu et al. Learning to Continually Learn. ECAI 2020, arXiv
2002.09571, section 3.1. The support set of a task are the examples of some classes, one
class after the other; its query set are examples of these classes, and of all: the
remember set. Labels are the numbers of the classes in the data set, not in the task.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.boundary import to_float
from jaxmeta.data.dataset import Dataset, check_in_memory
from jaxmeta.keys import purpose
from jaxmeta.tasks.plain import one_program
from jaxmeta.tasks.plans import Planner, planned
from jaxmeta.tasks.sizes import Fixed
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "planner", "offsets", "counts"],
    meta_fields=["first", "remember", "again"],
)
@dataclass(frozen=True)
class Streams:
    """A distribution over streams; support sets are to be read in their order."""

    x: Any  # [examples, ...], class after class, an array or a pytree of arrays
    planner: Planner  # of the classes that streams are made of
    offsets: jax.Array  # [classes] where each class begins
    counts: jax.Array  # [classes]
    first: int  # class of a stream; the remember set is of those before it, if any are
    remember: int
    again: bool  # whether the query set has the support examples, and no others

    @property
    def ways(self) -> int:
        """Labels that there are: all classes of the data set."""
        return len(self.counts)

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One task: support x [length * shots, ...], y, class after class in random
        order; query first the stream's classes, then the remember set."""
        plan = self.planner.plan(key)
        places = lambda slots: slots.example + self.offsets[self.first]
        labels = lambda slots: plan.classes[slots.row] + self.first
        asked = plan.support if self.again else plan.query
        old, y_old = self._remembered(purpose(key, "remember"))
        join = lambda a, b: jnp.concatenate([a, b])
        y = labels(plan.support), join(labels(asked), y_old)
        x = self._read(places(plan.support)), self._read(join(places(asked), old))
        return Task(Batch(x[0], y[0]), Batch(x[1], y[1]))

    def _remembered(self, key) -> tuple[jax.Array, jax.Array]:
        """(places, labels) of examples of random classes."""
        key_class, key_example = jax.random.split(key)
        y = jax.random.randint(key_class, (self.remember,), 0, self.first or self.ways)
        place = jax.random.uniform(key_example, (self.remember,)) * self.counts[y]
        place = jnp.minimum(place.astype(jnp.int32), self.counts[y] - 1)
        return self.offsets[y] + place, y

    def _read(self, places) -> Any:
        return jax.tree.map(lambda a: to_float(a[places]), self.x)


def streams(
    dataset: Dataset,
    length: int = 1,
    shots: int = 20,
    queries: int | None = None,
    *,
    remember: int = 64,
    apart: bool = False,
) -> Streams:
    """Streams of classes, and the question what is remembered.

    The defaults are those of ANML; OML has `streams(data, 3, 5, 5, remember=15,
    apart=True)`. A test is a longer stream of unseen classes, `jm.tasks.episodes(unseen,
    100, 15, 5)`: its support sets are in that order.

    Args:
        dataset: examples by class, in memory.
        length: classes of a stream. shots: examples of each, in its support set.
        queries: other examples of each in the query set; None = those of the support set.
        remember: random examples in the query set besides.
        apart: streams are of the second half of the classes, and the remember set of the
            first.

    Returns: a sampler; its `ways` are all classes of the data set.
    Raises: ValueError for a stream that is empty, or longer than there are classes, classes
        with too few examples, or records.

    >>> import numpy as np, jaxmeta as jm
    >>> data = jm.data.from_arrays(np.zeros((12, 2)), list("aabbccddeeff"))
    >>> task = streams(data, 2, 1, 1, remember=3, apart=True).sample(jax.random.key(0))
    >>> bool((task.support.y > 2).all()), bool((task.query.y[2:] < 3).all())
    (True, True)
    """
    check_in_memory("dataset", dataset)
    checks.check_flags(apart=apart)
    first = len(dataset.counts) // 2 if apart else 0
    of_streams = range(first, len(dataset.counts))
    checks.check_sizes(1, len(of_streams), length=length)
    checks.check_sizes(shots=shots, remember=remember)
    if queries is not None:
        checks.check_sizes(queries=queries)
    sizes = Fixed(int(length), int(shots), int(queries or 0))
    _, planner = planned(dataset.select(list(of_streams)), sizes)
    offsets, counts = jnp.asarray(dataset.offsets), jnp.asarray(dataset.counts)
    x = jax.tree.map(jnp.asarray, dataset.x)
    again = queries is None
    return Streams(x, planner, offsets, counts, first, int(remember), again)
