"""One problem as a task distribution: a training set and a validation set.

For problems in two levels (`jm.bilevel`, `jm.online_bilevel`): penalties, weights of
examples, architectures are learned on one pair of sets, whole or in minibatches.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.batches import examples
from jaxmeta.tasks.plain import one_program
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["support", "query"],
    meta_fields=["batch_size"],
)
@dataclass(frozen=True)
class Single:
    """One task, whole or by minibatches of it."""

    support: Batch
    query: Batch
    batch_size: int | None = None

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """The task; with a `batch_size`, so many examples of each set, drawn without
        replacement."""
        key_support, key_query = jax.random.split(key)
        return Task(
            self._part(self.support, key_support), self._part(self.query, key_query)
        )

    def _part(self, batch: Batch, key) -> Batch:
        n = examples(batch)
        if self.batch_size is None or self.batch_size >= n:
            return batch
        rows = jax.lax.top_k(jax.random.uniform(key, (n,)), self.batch_size)[1]
        return jax.tree.map(lambda a: a[rows], batch)


def single(train: Batch, validation: Batch, batch_size: int | None = None) -> Single:
    """One problem, every time: learn from `train`, be judged on `validation`.

    Args:
        train, validation: the support and the query set, arrays [examples, ...].
        batch_size: examples of each set in a sample, drawn anew by its key, all of a set
            that has fewer; None = all.

    Returns: a sampler; `jm.fit(..., tasks_per_step=1)` has use for one task a step.
    Raises: ValueError for sets whose arrays do not fit together, or a size below 1.

    >>> import jax, jax.numpy as jnp, jaxmeta as jm
    >>> rows = jm.Batch(jnp.arange(10.0)[:, None], jnp.arange(10))
    >>> task = jm.tasks.single(rows, rows, batch_size=4).sample(jax.random.key(0))
    >>> task.support.x.shape, task.query.y.shape
    ((4, 1), (4,))
    """
    if batch_size is not None:
        checks.check_sizes(batch_size=batch_size)
        batch_size = int(batch_size)
    sets = []
    for name, batch in (("train", train), ("validation", validation)):
        checks.check_kind(batch, Batch, name)
        arrays = jax.tree.map(lambda a: jnp.asarray(checks.native(a)), batch)
        checks.check_batch(arrays, name)
        sets.append(arrays)
    return Single(sets[0], sets[1], batch_size)
