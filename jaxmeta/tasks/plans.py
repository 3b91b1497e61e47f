"""Which classes and examples make an episode: numbers, a pure function of a key.

A plan knows nothing of what the examples are, so arrays on the device, files on disk and
a process that has some of them make the same episode of the same key.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks
from jaxmeta.boundary import to_float
from jaxmeta.data.dataset import Dataset
from jaxmeta.keys import purpose
from jaxmeta.tasks.augment import Augment, asked, rotate
from jaxmeta.tasks.sizes import Fixed, Sizes
from jaxmeta.types import UNLABELLED, Batch, Task


class Slots(NamedTuple):
    """Which examples a set has, in order: numbers, and nothing of what they are."""

    example: jax.Array  # [n] place in the data set's arrays
    row: jax.Array  # [n] which of the episode's classes
    place: jax.Array  # [n] which of the examples drawn of that class
    y: jax.Array  # [n] label
    mask: jax.Array | None  # [n] 1 = counts; None = all do


class Plan(NamedTuple):
    """An episode as numbers: who has the data set's arrays can make it of them."""

    classes: jax.Array  # [ways + distractors] number of each class in the data set
    turn: jax.Array  # [ways + distractors] quarter turns
    support: Slots
    query: Slots
    key: jax.Array  # of the random changes of images


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["offsets", "counts", "groups", "label_noise"],
    meta_fields=[
        *("sizes", "rotations", "augment", "unlabelled", "distractors", "largest"),
    ],
)
@dataclass(frozen=True)
class Planner:
    """A distribution over plans: which classes, which examples, without the examples."""

    offsets: jax.Array  # [classes] where each class begins
    counts: jax.Array  # [classes] examples that a class has
    groups: jax.Array | None  # [classes] its group; None: any classes together
    label_noise: float | None
    sizes: Sizes
    rotations: bool
    augment: Augment | None
    unlabelled: int
    distractors: int
    largest: int  # of the counts

    @property
    def ways(self) -> int:
        """Classes of an episode, at most."""
        return self.sizes.ways

    def plan(self, key: jax.Array) -> Plan:
        """The plan of one episode, a pure function of its key."""
        key_classes, key_examples, key_changes = jax.random.split(key, 3)
        turns = 4 if self.rotations else 1
        chosen = self._choose(key_classes, turns)
        classes, turn = chosen // turns, chosen % turns
        counts = self.counts[classes]
        enough = counts[: self.ways] - self.unlabelled
        drawn = self.sizes.draw(purpose(key, "sizes"), enough)
        order = jax.vmap(without_replacement, (0, None, None, 0))(
            jax.random.split(key_examples, len(chosen)),
            self._each,
            self.largest,
            counts,
        )  # [ways + distractors, each]

        def slots(numbers, total, first, labels):
            row, place, mask = _places(numbers, total, isinstance(self.sizes, Fixed))
            place = jnp.minimum(place + first[row], self._each - 1)
            # what is masked may lie beyond the class, but not beyond the data
            within = jnp.minimum(order[row, place], counts[row] - 1)
            example = self.offsets[classes[row]] + within
            return Slots(example, row, place, labels[row], mask)

        labels, none = jnp.arange(self.ways), jnp.zeros_like(drawn.support)
        support = slots(drawn.support, self.sizes.support, none, labels)
        query = slots(drawn.query, self.sizes.query, drawn.support, labels)
        if self.label_noise is not None:
            support = self._mislabelled(purpose(key, "labels"), support, drawn)
        if self.unlabelled:
            more = lambda a, fill: jnp.pad(
                a, (0, self.distractors), constant_values=fill
            )
            used = more(drawn.support + drawn.query, sum(self.sizes.wanted))
            number = more(
                jnp.where(drawn.support > 0, self.unlabelled, 0), self.unlabelled
            )
            nameless = jnp.full(len(chosen), UNLABELLED)
            hidden = slots(number, self.unlabelled * len(chosen), used, nameless)
            support = jax.tree.map(
                lambda a, b: jnp.concatenate([a, b]), support, hidden
            )
        return Plan(classes, turn, support, query, key_changes)

    def _mislabelled(self, key, support, drawn):
        """With some labels replaced by another of the episode's, uniformly."""
        key_which, key_label = jax.random.split(key)
        ways = jnp.sum(drawn.support > 0)
        other = jax.random.randint(key_label, support.y.shape, 1, ways)
        draws = jax.random.uniform(key_which, support.y.shape)
        wrong = draws < jnp.asarray(self.label_noise)
        return support._replace(
            y=jnp.where(wrong, (support.y + other) % ways, support.y)
        )

    def finish(self, plan: Plan, x_support: Any, x_query: Any) -> Task:
        """The task of a plan and of its examples as they are stored."""
        xs = tuple(jax.tree.map(to_float, x) for x in (x_support, x_query))
        if self.rotations or self.augment is not None:
            xs = self._changed(plan, xs)
        sets = zip(xs, (plan.support, plan.query), strict=True)
        return Task(*(Batch(x, slots.y, slots.mask) for x, slots in sets))

    def _changed(self, plan: Plan, xs: tuple[Any, Any]) -> tuple[Any, Any]:
        """Both sets' examples turned and augmented, at once: half as much to compile."""
        joined = lambda *parts: jax.tree.map(lambda *a: jnp.concatenate(a), *parts)
        slots, first = (plan.support, plan.query), len(plan.support.row)
        x, row, place = joined(
            *((x, s.row, s.place) for x, s in zip(xs, slots, strict=True))
        )
        if self.rotations:
            x = rotate(x, plan.turn[row])
        if self.augment is not None:
            shape = len(plan.classes), self._each
            keys = jax.random.split(jax.random.clone(plan.key), shape)
            x = jax.vmap(self.augment)(keys[row, place], x)
        part = lambda within: jax.tree.map(lambda a: a[within], x)
        return part(slice(first)), part(slice(first, None))

    @property
    def _each(self) -> int:
        """Examples drawn of a class."""
        return min(self.sizes.each + self.unlabelled, self.largest)

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


def _places(numbers: jax.Array, total: int, fixed: bool):
    """(row [total], place in its row [total], mask [total] or None) of rows with so many
    places each, one after the other.

    >>> row, place, mask = _places(jnp.array([2, 0, 1]), 4, False)
    >>> row.tolist(), place.tolist(), mask.tolist()
    ([0, 0, 2, 2], [0, 1, 0, 1], [1.0, 1.0, 1.0, 0.0])
    """
    if fixed:
        each = total // len(numbers)
        slots = jnp.arange(total)
        return slots // each, slots % each, None
    ends = jnp.cumsum(numbers)
    slots = jnp.arange(total)
    row = jnp.searchsorted(ends, slots, side="right")
    row = jnp.minimum(row, len(numbers) - 1)
    return row, slots - (ends - numbers)[row], (slots < ends[-1]).astype(jnp.float32)


def planned(
    dataset: Dataset,
    sizes: Sizes,
    *,
    rotations: bool = False,
    jitter: float = 0.0,
    augment: Augment | None = None,
    within_groups: bool = False,
    unlabelled: int = 0,
    distractors: int = 0,
    label_noise: float = 0.0,
) -> tuple[Dataset, Planner]:
    """The classes that can be drawn, and how they are; arguments as in `episodes`."""
    check_images(dataset, rotations, jitter)
    augment = asked(jitter, augment, dataset.example)
    ways = sizes.ways
    checks.check_sizes(0, unlabelled=unlabelled, distractors=distractors)
    checks.check_flags(within_groups=within_groups)
    checks.check_numbers(least=0, most=1, label_noise=label_noise)
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
    check_large_enough(dataset, sizes, unlabelled)
    planner = Planner(
        jnp.asarray(dataset.offsets),
        jnp.asarray(dataset.counts),
        groups,
        label_noise or None,
        sizes,
        rotations,
        augment,
        unlabelled,
        distractors,
        int(dataset.counts.max()),
    )
    return dataset, planner


def check_large_enough(dataset: Dataset, sizes: Sizes, unlabelled: int = 0) -> None:
    """Raise ValueError for classes with too few examples, by name."""
    least = sum(sizes.wanted) + unlabelled
    small = np.flatnonzero(dataset.counts < least)
    if not len(small):
        return
    first = small[dataset.counts[small].argmin()]
    parts = " + ".join(map(str, sizes.wanted))
    more = f" + {unlabelled} unlabelled" if unlabelled else ""
    others = f" ({len(small)} classes are too small)" if len(small) > 1 else ""
    raise ValueError(
        f"shots + queries: {parts}{more} examples of each class wanted, class "
        f"{dataset.classes[first]!r} of {dataset.title} has {dataset.counts[first]}"
        f"{others}; lower shots or queries, or leave such classes out: "
        f"data.at_least({least})"
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
    shapes = [a.shape for a in jax.tree.leaves(dataset.example)]
    if (rotations or jitter) and (len(shapes) > 1 or len(shapes[0]) != 3):
        raise ValueError(
            "rotations and jitter: expected images [height, width, channels], got "
            f"examples of shape {shapes[0] if len(shapes) == 1 else shapes}"
        )
    if rotations and shapes[0][0] != shapes[0][1]:
        raise ValueError(f"rotations: expected square images, got {shapes[0][:2]}")


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
    return dataset.select(keep.tolist()), jnp.asarray(number[keep])


def without_replacement(key, size, total, count=None):
    """`size` different numbers below `count` (or `total`), in random order.

    The largest of uniforms: several times faster than a permutation.
    """
    draws = jax.random.uniform(key, (total,))
    if count is not None:
        draws = jnp.where(jnp.arange(total) < count, draws, -1.0)
    return jax.lax.top_k(draws, size)[1]
