"""A user is a task: the support set is what they rated, the query set is asked for.

Lee et al. MeLU: Meta-Learned User Preference Estimator for Cold-Start Recommendation. KDD
2019, arXiv 1908.00413: of users with 13 to 100 ratings, 10 random ones are the query set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np

from jaxmeta import checks
from jaxmeta.data.dataset import Dataset
from jaxmeta.tasks.by_task import ByTask, by_task
from jaxmeta.types import Batch, Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["x", "targets", "planner"],
    meta_fields=["items"],
)
@dataclass(frozen=True)
class Users(ByTask):
    """A distribution over users. items: how many there are to be rated."""

    items: int

    def everyone(self, key: jax.Array) -> Task:
        """Each user once, a batch of tasks [users, ...]: a test that draws only queries."""
        return _everyone(self, key)

    def everything(self) -> Iterator[Batch]:
        """All ratings of these users at once, user after user."""
        starts, counts = (
            np.asarray(self.planner.offsets),
            np.asarray(self.planner.counts),
        )
        each = [np.arange(a, a + n) for a, n in zip(starts, counts, strict=True)]
        take = lambda a: a[np.concatenate(each)]
        yield Batch(*jax.tree.map(take, (self.x, self.targets)))

    def select(self, chosen: Sequence[int] | np.ndarray) -> "Users":
        """Some of the users, by their numbers in the data set's classes.

        As many others are sampled by the same program: only numbers change.
        Raises: ValueError for none, or a user who is not there.
        """
        numbers, users = np.asarray(chosen), len(self.planner.counts)
        whole = numbers.ndim == 1 and numbers.dtype.kind in "iu" and len(numbers)
        if not whole or numbers.min() < 0 or numbers.max() >= users:
            raise ValueError(
                f"chosen: expected numbers of users in 0..{users - 1}, at least one, got "
                f"{checks.said(chosen)}"
            )
        offsets, counts = self.planner.offsets[numbers], self.planner.counts[numbers]
        return replace(
            self, planner=replace(self.planner, offsets=offsets, counts=counts)
        )


@jax.jit
def _everyone(sampler: Users, key: jax.Array) -> Task:
    whole = sampler.planner

    def one(offset, count, key):
        alone = replace(whole, offsets=offset[None], counts=count[None])
        return replace(sampler, planner=alone).sample(key)

    keys = jax.random.split(key, len(whole.counts))
    return jax.vmap(one)(whole.offsets, whole.counts, keys)


def users(dataset: Dataset, queries: int = 10, *, items: int | None = None) -> Users:
    """Tasks that are users: all that they rated but `queries`, padded and masked.

    Args:
        dataset: `jm.data.ratings(root, least=13, most=100)`, or one of
            `jm.data.from_arrays(x, user, targets=rating)` whose x is a dict with the number
            of an item, "item" [n]; divide it by user with `dataset.splits(...)`.
        queries: ratings of a user that are asked for, drawn anew each time.
        items: how many items there are, the data of other users included; None = up to
            the largest number here.

    Returns: a sampler; `everyone(key)` has each user once.
    Raises: ValueError for data without items or targets, an item beyond `items`, or a user
        with fewer than 1 + queries ratings, by name.

    >>> import numpy as np, jaxmeta as jm
    >>> x = {"item": np.arange(8, dtype=np.int32)}
    >>> rating = np.arange(8.0)[:, None]
    >>> data = jm.data.from_arrays(x, ["ann"] * 3 + ["bob"] * 5, targets=rating)
    >>> sampler = users(data, queries=2)
    >>> sampler.items, sampler.everyone(jax.random.key(0)).support.mask.tolist()
    (8, [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    """
    checks.check_kind(dataset, Dataset, "dataset")
    if not isinstance(dataset.x, dict) or "item" not in dataset.x:
        raise ValueError(
            f"dataset: {dataset.title} has no items; expected inputs that are a dict with "
            '"item", e.g. jm.data.ratings(root), or use jm.tasks.by_task'
        )
    made = by_task(dataset, queries=queries)
    there = int(np.max(dataset.x["item"])) + 1
    if items is not None:
        checks.check_sizes(there, items=items)
    fields = made.x, made.targets, made.planner
    return Users(*fields, items=there if items is None else int(items))
