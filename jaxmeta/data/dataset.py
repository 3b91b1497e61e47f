"""A data set for few-shot learning: examples in class-major order."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import jax
import numpy as np

from jaxmeta import checks


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples by class, on the host; the samplers of `jm.tasks` put them on the device.

    name, split: what it is. x: [examples, ...], class after class, uint8 in 0..255, whole
    numbers or floating, or a pytree of such arrays. counts: [classes] int32, examples of
    each. classes: a name each. groups: the script, alphabet or domain of each class, or
    "". targets: [examples, ...] where a class is a task of its own (`jm.tasks.by_task`),
    else None. origin: [examples], where each came from: its place among the arrays, or
    its file. records: None, or where the examples are if they are not in memory: x are
    their numbers then, and `records[i]` is read when it is drawn (`from_records`).
    """

    name: str
    split: str
    x: Any
    counts: np.ndarray
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    targets: Any = None
    origin: np.ndarray | None = None
    records: Any = None

    @property
    def title(self) -> str:
        """Name and split, for messages."""
        return f"{self.name}/{self.split}" if self.split else self.name

    @property
    def offsets(self) -> np.ndarray:
        """[classes] where each class begins in x."""
        return (np.cumsum(self.counts) - self.counts).astype(np.int32)

    @property
    def example(self) -> Any:
        """One example, as it is stored."""
        return jax.tree.map(lambda a: a[0], self.read(slice(0, 1)))

    def of(self, chosen: int | str) -> Any:
        """The examples of a class, by its number or name."""
        (i,) = self._numbers([chosen])
        return self.read(slice(self.offsets[i], self.offsets[i] + self.counts[i]))

    def read(self, rows: slice | np.ndarray) -> Any:
        """The examples at some places of the data set, [n, ...].

        Raises: ValueError for records that differ in shape or type.
        """
        x = jax.tree.map(lambda a: a[rows], self.x)
        return x if self.records is None else read_records(self.records, x)

    def select(
        self, chosen: Sequence[int | str], split: str | None = None
    ) -> "Dataset":
        """The data set of some of the classes, by number or name, in the order given.

        Raises: ValueError for a class that is not there, or is chosen twice.
        """
        numbers = self._numbers(chosen)
        if len(set(numbers)) < len(numbers):
            twice = next(n for i, n in enumerate(numbers) if n in numbers[:i])
            raise ValueError(f"chosen: class {self.classes[twice]!r} is named twice")
        starts = self.offsets
        parts = [np.arange(starts[i], starts[i] + self.counts[i]) for i in numbers]
        rows = np.concatenate([np.zeros(0, np.int64), *parts])
        return Dataset(
            self.name,
            self.split if split is None else split,
            jax.tree.map(lambda a: a[rows], self.x),
            self.counts[numbers],
            tuple(self.classes[i] for i in numbers),
            tuple(self.groups[i] for i in numbers),
            jax.tree.map(lambda a: a[rows], self.targets),
            None if self.origin is None else self.origin[rows],
            self.records,
        )

    def at_least(self, examples: int) -> "Dataset":
        """Without the classes that have fewer examples.

        Raises: ValueError if none is left.
        """
        checks.check_sizes(examples=examples)
        kept = np.flatnonzero(self.counts >= examples).tolist()
        if not kept:
            raise ValueError(
                f"examples: no class of {self.title} has {examples}, the largest has "
                f"{self.counts.max()}"
            )
        return self.select(kept)

    def splits(
        self,
        *,
        seed: int = 0,
        by_group: bool = False,
        **parts: float | Sequence[int | str],
    ) -> dict[str, "Dataset"]:
        """The classes divided into disjoint data sets.

        Args:
            seed: of the division by shares. by_group: keep the classes of a group
                together (shares are then of groups).
            parts: by the name of the split, its share of the classes (0.6) or its classes
                by number or name (or groups by name, with `by_group`); all of one kind.

        Raises: ValueError for a class in two splits, one that the data lack, shares that
            exceed 1, or a split without a class.

        >>> import numpy as np, jaxmeta as jm
        >>> data = jm.data.from_arrays(np.zeros((10, 2)), list("aabbccddee"))
        >>> parts = data.splits(train=0.6, test=0.4)
        >>> len(parts["train"].classes), len(parts["test"].classes)
        (3, 2)
        >>> data.splits(train=["a", "d"], test=["c"])["train"].classes
        ('a', 'd')
        """
        return divided(self, seed, by_group, parts)

    def _numbers(self, chosen: Sequence[int | str]) -> list[int]:
        _check_several(chosen, "chosen", "classes")
        known = {name: i for i, name in enumerate(self.classes)}
        return [self._number(c, known) for c in chosen]

    def _number(self, chosen: int | str, known: dict[str, int]) -> int:
        if not isinstance(chosen, str):
            checks.check_sizes(0, len(self.counts) - 1, chosen=chosen)
            return int(chosen)
        if chosen not in known:
            near = difflib.get_close_matches(chosen, known, 3) or list(known)[:3]
            raise ValueError(
                f"chosen: {self.title} has no class {chosen!r}; expected one of "
                f"{len(known)}, e.g. {', '.join(near)}"
            )
        return known[chosen]


def divided(data: Dataset, seed: int, by_group: bool, parts) -> dict[str, Dataset]:
    """As `Dataset.splits`."""
    checks.check_seeds(seed=seed)
    checks.check_flags(by_group=by_group)
    names = sorted(set(data.groups)) if by_group else list(data.classes)
    shares = [isinstance(v, Real) for v in parts.values()]
    if not parts or any(shares) != all(shares):
        raise ValueError(
            "splits: expected a share of each (train=0.6, test=0.4) or the classes of "
            f"each (train=[...], test=[...]), got {', '.join(parts) or 'none'}"
        )
    if all(shares):
        parts = _shares(names, seed, parts)
    seen: dict[str, str] = {}
    made = {}
    for split, chosen in parts.items():
        if by_group:
            chosen = _of_groups(data, chosen)
        numbers = data._numbers(chosen)
        for i in numbers:
            name = data.classes[i]
            if name in seen:
                raise ValueError(
                    f"splits: class {name!r} is in {seen[name]} and in {split}, so a test "
                    "would know it from training; name it once"
                )
            seen[name] = split
        if not numbers:
            raise ValueError(f"splits: {split} has no class; give it a larger share")
        made[split] = data.select(numbers, split)
    return made


def _shares(names: list[str], seed: int, parts) -> dict[str, list[str]]:
    """The first of a random order go to the first split, and so on."""
    for split, share in parts.items():
        checks.check_positive(**{split: share})
    if sum(parts.values()) > 1 + 1e-9:
        raise ValueError(
            f"splits: expected shares of at most 1 in all, got {sum(parts.values()):g}"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    ends = np.round(np.cumsum(list(parts.values())) * len(names)).astype(int)
    starts = [0, *ends[:-1]]
    pick = lambda a, b: [names[i] for i in sorted(order[a:b])]
    return {s: pick(a, b) for s, a, b in zip(parts, starts, ends, strict=True)}


def _check_several(chosen, argument: str, what: str) -> None:
    """Raise ValueError unless there is something to go through, and no string."""
    several = isinstance(chosen, Iterable) and getattr(chosen, "ndim", 1)
    if isinstance(chosen, str) or not several:
        raise ValueError(
            f"{argument}: expected a list of {what}, got {checks.said(chosen)}"
        )


def _of_groups(data: Dataset, groups: Sequence[str]) -> list[int]:
    _check_several(groups, "splits", "groups")
    for group in groups:
        if group not in data.groups:
            raise ValueError(
                f"splits: {data.title} has no group {group!r}; expected some of "
                f"{', '.join(sorted(set(data.groups))[:9])}"
            )
    return [i for i, group in enumerate(data.groups) if group in set(groups)]


def joined(*parts: Dataset, name: str | None = None, split: str = "") -> Dataset:
    """One data set of the classes of several, e.g. of domains: with `within_groups=True`
    each episode then comes from one.

    Args: parts: data sets with examples of one shape and type. A class whose group is ""
        gets the name of its data set as its group. name, split: of the whole.
    Raises: ValueError for a class that two of them have (also under one group), examples
        or targets that differ in shape or type, or records.

    >>> import numpy as np, jaxmeta as jm
    >>> make = lambda name: jm.data.from_arrays(np.zeros((4, 3)), list("aabb"), name=name)
    >>> joined(make("p"), make("q")).classes
    ('p/a', 'p/b', 'q/a', 'q/b')
    """
    for d in parts:
        check_in_memory("joined", d)
    for what, trees in (("examples", [d.x for d in parts]), *_targets(parts)):
        shapes = [_shapes(tree) for tree in trees]
        alike = len({jax.tree.structure(tree) for tree in trees}) == 1
        if not alike or any(s != shapes[0] for s in shapes):
            raise ValueError(
                f"joined: expected data sets with {what} of one shape and type, got "
                f"{shapes}"
            )
    spelled = [c for d in parts for c in d.classes]
    if len(set(spelled)) < len(spelled):  # classes of one name: say whose
        spelled = [f"{d.name}/{c}" for d in parts for c in d.classes]
    if len(set(spelled)) < len(spelled):
        twice = next(c for i, c in enumerate(spelled) if c in spelled[:i])
        raise ValueError(f"joined: class {twice!r} is in two of the data sets")
    join = lambda *arrays: np.concatenate(arrays)
    return Dataset(
        name or "+".join(d.name for d in parts),
        split,
        jax.tree.map(join, *(d.x for d in parts)),
        np.concatenate([d.counts for d in parts]),
        tuple(spelled),
        tuple(group or d.name for d in parts for group in d.groups),
        jax.tree.map(join, *(d.targets for d in parts)),
    )


def check_in_memory(name: str, dataset: Any) -> None:
    """Raise ValueError for what is no data set, or one whose examples are records."""
    checks.check_kind(dataset, Dataset, name)
    if dataset.records is not None:
        raise ValueError(
            f"{name}: {dataset.title} has records, which are read one by one; expected "
            "arrays in memory, e.g. jm.data.from_arrays(...)"
        )


def _targets(parts) -> list:
    """("targets", those of each part), if any has some."""
    targets = [d.targets for d in parts]
    return [("targets", targets)] if any(t is not None for t in targets) else []


def _shapes(x: Any) -> list:
    return [(a.shape[1:], str(a.dtype)) for a in jax.tree.leaves(x)]


def read_records(records: Any, numbers: np.ndarray) -> Any:
    """Records as arrays [n, ...]. Raises: ValueError if they differ in shape or type."""
    several = getattr(records, "__getitems__", None)
    listed = [int(i) for i in numbers]
    found = several(listed) if several else [records[i] for i in listed]
    rows = [jax.tree.map(np.asarray, row) for row in found]
    shapes = [[(a.shape, a.dtype) for a in jax.tree.leaves(row)] for row in rows]
    for i, other in zip(listed, shapes, strict=True):
        if other != shapes[0]:
            raise ValueError(
                f"records: expected examples of one shape and type, {shapes[0]} in record "
                f"{listed[0]}, got {other} in record {i}; bring them to one when they are "
                "read"
            )
    return jax.tree.map(lambda *a: np.stack(a), *rows)


def of_classes(
    name: str,
    split: str,
    images: Sequence[np.ndarray],
    classes: Sequence[str],
    groups: Sequence[str],
) -> Dataset:
    """A data set from an array [examples, ...] of each class."""
    return Dataset(
        name,
        split,
        np.concatenate(images),
        np.array([len(a) for a in images], np.int32),
        tuple(classes),
        tuple(groups),
    )
