"""Tasks whose examples have several labels at once, or none: tags of an image, topics of
a text, side effects of a drug.

Simon, Koniusz, Harandi. Meta-Learning for Multi-Label Few-Shot Classification. WACV 2022.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks
from jaxmeta.boundary import to_float
from jaxmeta.data.dataset import Dataset
from jaxmeta.tasks.plain import one_program
from jaxmeta.tasks.plans import without_replacement
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "targets", "having", "offsets", "counts"],
    meta_fields=["ways", "shots", "queries", "largest"],
)
@dataclass(frozen=True)
class MultiLabel:
    """A distribution over episodes of labels that go together."""

    x: Any  # [examples, ...], an array or a pytree of arrays
    targets: jax.Array  # [examples, labels] bool
    having: jax.Array  # examples of the first label, then of the second, ...
    offsets: jax.Array  # [labels] where each begins in `having`
    counts: jax.Array  # [labels] examples that have it
    ways: int
    shots: int
    queries: int
    largest: int  # of the counts

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One episode: x [ways * shots, ...], y [ways * shots, ways] bool, whether an
        example has each of the episode's labels; a query set like it."""
        labels, example, fresh = self.plan(key)
        first = self.ways * self.shots

        def batch(part):
            take = lambda a: to_float(a[example[part]])
            y = self.targets[example[part]][:, labels]
            return Batch(jax.tree.map(take, self.x), y, fresh[part])

        return Task(batch(slice(None, first)), batch(slice(first, None)))

    def plan(self, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Which labels [ways], which examples (support, then query), and a mask that
        is 0 where an example was there before: drawn for another of its labels."""
        key_labels, key_examples = jax.random.split(key)
        labels = without_replacement(key_labels, self.ways, len(self.counts))
        each = self.shots + self.queries
        place = jax.vmap(without_replacement, (0, None, None, 0))(
            jax.random.split(key_examples, self.ways),
            *(each, self.largest, self.counts[labels]),
        )  # [ways, each]
        drawn = self.having[self.offsets[labels][:, None] + place]
        parts = drawn[:, : self.shots], drawn[:, self.shots :]
        example = jnp.concatenate([jnp.ravel(part) for part in parts])
        before = jnp.tril(example[:, None] == example[None, :], -1)
        return labels, example, 1 - jnp.any(before, axis=1).astype(jnp.float32)


def multi_label(
    dataset: Dataset,
    ways: int,
    shots: int,
    queries: int,
    *,
    labels: Sequence[int] | None = None,
) -> MultiLabel:
    """Episodes of `ways` labels, with `shots` support and `queries` query examples drawn
    for each among those that have it.

    An example is there once: where it is drawn for another of its labels again, it is
    masked, so support and query sets never share one. Its other labels of the episode
    count, so a label has at least as many examples as were drawn for it and are not
    masked. A learner with `loss=jm.losses.binary_cross_entropy` and as many outputs as
    ways learns from them.

    Args:
        dataset: with targets [examples, labels] of 0 and 1 (or bool), e.g.
            `jm.data.from_arrays(x, ["all"] * len(x), targets=tags)`; its classes are of no
            account.
        ways, shots, queries: as above.
        labels: numbers of the labels (columns of the targets) that may be drawn, for
            training and test on different ones; None = all.

    Returns: a sampler.
    Raises: ValueError for targets that are no table of 0 and 1, labels that are not there,
        fewer labels than ways, or a label with fewer than shots + queries examples.

    >>> import numpy as np, jaxmeta as jm
    >>> tags = np.random.default_rng(0).random((60, 8)) < 0.5
    >>> data = jm.data.from_arrays(np.zeros((60, 2)), ["all"] * 60, targets=tags)
    >>> task = multi_label(data, 3, shots=2, queries=4).sample(jax.random.key(0))
    >>> task.support.y.shape, str(task.support.y.dtype), task.query.x.shape
    ((6, 3), 'bool', (12, 2))
    """
    checks.check_kind(dataset, Dataset, "dataset")
    checks.check_sizes(ways=ways, shots=shots, queries=queries)
    table = _table(dataset)
    chosen = _chosen(labels, table.shape[1])
    if ways > len(chosen):
        raise ValueError(
            f"ways: {ways} labels wanted, {dataset.title} has {len(chosen)} to draw from"
        )
    table = table[:, chosen]
    counts = table.sum(axis=0)
    fewest = int(counts.argmin())
    if counts[fewest] < shots + queries:
        raise ValueError(
            f"shots + queries: {shots} + {queries} examples of each label wanted, label "
            f"{chosen[fewest]} of {dataset.title} has {counts[fewest]}; lower shots or "
            "queries, or leave the label out of labels="
        )
    having = np.concatenate([np.flatnonzero(column) for column in table.T])
    x = jax.tree.map(jnp.asarray, dataset.x)
    offsets = (np.cumsum(counts) - counts).astype(np.int32)
    return MultiLabel(
        *(x, jnp.asarray(table), jnp.asarray(having.astype(np.int32))),
        *(jnp.asarray(offsets), jnp.asarray(counts.astype(np.int32))),
        *(int(ways), int(shots), int(queries), int(counts.max())),
    )


def _table(dataset: Dataset) -> np.ndarray:
    """[examples, labels] bool."""
    targets = dataset.targets
    table = np.asarray(targets if hasattr(targets, "dtype") else np.nan)
    if table.ndim != 2 or not np.isin(table, (0, 1)).all():
        raise ValueError(
            f"dataset: expected targets [examples, labels] of 0 and 1, got "
            f"{checks.said(targets)}; e.g. jm.data.from_arrays(x, ['all'] * len(x), "
            "targets=tags)"
        )
    if dataset.records is not None:
        raise ValueError(
            "dataset: its examples are records, which multi_label does not read; expected "
            "arrays, e.g. jm.data.from_arrays(dataset.read(slice(None)), ...)"
        )
    return table.astype(bool)


def _chosen(labels: Sequence[int] | None, there: int) -> list[int]:
    if labels is None:
        return [*range(there)]
    chosen = [int(label) for label in labels]
    if len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(there)):
        raise ValueError(
            f"labels: expected different numbers in 0..{there - 1}, got {chosen}"
        )
    return chosen
