"""Pairs of domains: a labelled source, a target without labels.

A task's support set is labelled examples of the source, and examples of the target whose
label is `UNLABELLED`; its query set is other examples of the target, with labels. A
distribution over pairs: `jaxmeta.tasks.pairs`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks
from jaxmeta.boundary import to_float
from jaxmeta.data.dataset import Dataset, check_in_memory
from jaxmeta.tasks.plain import one_program
from jaxmeta.types import UNLABELLED, Batch, Task


class Examples(NamedTuple):
    """All examples of a domain."""

    x: Any  # [n, ...], an array or a pytree of arrays
    y: jax.Array  # [n]

    def at(self, places: jax.Array) -> "Examples":
        """Some of them."""
        return Examples(
            jax.tree.map(lambda a: to_float(a[places]), self.x), self.y[places]
        )


class Sizes(NamedTuple):
    """Examples of a task: labelled, unlabelled, and those that it is judged on."""

    sources: int
    targets: int
    queries: int


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["source", "target"],
    meta_fields=["ways", "sizes"],
)
@dataclass(frozen=True)
class Domains:
    """One pair of domains, of which each task has other examples."""

    source: Examples
    target: Examples
    ways: int
    sizes: Sizes

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One task: support x [sources + targets, ...], y [sources + targets], first those
        with labels; query x [queries, ...], y [queries]."""
        key_source, key_target = jax.random.split(key)
        order = classes_first(key_source, self.source.y, self.ways)
        rest = jax.random.permutation(key_target, len(self.target.y))
        labelled = self.source.at(order[: self.sizes.sources])
        return task_of(labelled, self.target.at(rest), self.sizes)


def task_of(labelled: Examples, rest: Examples, sizes: Sizes) -> Task:
    """Of the rest, the first are the unlabelled, the next the query set."""
    middle, end = sizes.targets, sizes.targets + sizes.queries
    query = jax.tree.map(lambda a: a[middle:end], rest)
    join = lambda a, b: jnp.concatenate([a, b[:middle]])
    unknown = jnp.full_like(rest.y, UNLABELLED)
    support = jax.tree.map(join, labelled, rest._replace(y=unknown))
    return Task(Batch(*support), Batch(*query))


def classes_first(key: jax.Array, y: jax.Array, ways: int) -> jax.Array:
    """[n] a random order of the examples that begins with one of each class."""
    n = len(y)
    place = jax.random.permutation(key, n)
    first = jax.ops.segment_min(place, y, ways)[y] == place
    return jnp.argsort(jnp.where(first, place - n, place))


def domains(
    source: Dataset,
    target: Dataset,
    *,
    sources: int | None = None,
    targets: int | None = None,
    queries: int | None = None,
) -> Domains:
    """Tasks of one pair of domains.

    Args:
        source, target: data sets with the same classes, by name, and inputs of one shape.
        sources: labelled examples of a task, drawn anew for each, one of each class at
            least; None = all of the source.
        targets, queries: examples of the target without labels, and those that are
            predicted, drawn likewise, none of them both; None = all that are left, or
            half of them if both are.

    Returns: a sampler of tasks with as many ways as classes. Raises: ValueError for other
        classes, inputs of another shape, fewer sources than classes, or more examples
        than there are.

    >>> import numpy as np, jaxmeta as jm
    >>> make = lambda x: jm.data.from_arrays(x, list("abcabc"))
    >>> here, there = np.zeros((6, 2)), np.ones((6, 2))
    >>> task = domains(make(here), make(there), queries=2).sample(jax.random.key(0))
    >>> task.support.x.shape, task.support.y[6:].tolist(), task.query.y.shape
    ((10, 2), [-1, -1, -1, -1], (2,))
    """
    for name, dataset in {"source": source, "target": target}.items():
        check_domain(name, dataset)
    if set(source.classes) != set(target.classes):
        missing = set(source.classes) ^ set(target.classes)
        raise ValueError(
            f"source, target: expected the same classes, but only one of {source.title} "
            f"and {target.title} has {', '.join(sorted(missing)[:5])}; leave classes out "
            "with dataset.select([...])"
        )
    shapes = [shapes_of(d) for d in (source, target)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "source, target: expected inputs of one shape and type, got "
            f"{shapes[0]} and {shapes[1]}"
        )
    (sources,) = divided(source, sources=sources)
    sizes = Sizes(sources, *divided(target, targets=targets, queries=queries))
    there = target.select(source.classes)
    ways = len(source.classes)
    return Domains(examples_of(source), examples_of(there), ways, sizes)


def check_domain(name: str, dataset: Dataset) -> None:
    """Raise ValueError for what is no data set in memory, or has one class."""
    check_in_memory(name, dataset)
    if len(dataset.classes) < 2:
        raise ValueError(f"{name}: expected 2 classes or more, got {dataset.classes}")


def divided(dataset: Dataset, **sizes: int | None) -> list[int]:
    """Sizes of disjoint sets of its examples; what is None shares what is left."""
    given = {name: size for name, size in sizes.items() if size is not None}
    checks.check_sizes(**given)
    total, wanted = int(dataset.counts.sum()), sum(given.values())
    share, more = divmod(total - wanted, max(1, len(sizes) - len(given)))
    if wanted > total or (share < 1 and len(given) < len(sizes)):
        raise ValueError(
            f"{' + '.join(sizes)}: expected at least 1 of each and {total} in all, which is "
            f"what {dataset.title} has, got {given}"
        )
    unsaid = [name for name in sizes if name not in given]
    found = given | {name: share + (i < more) for i, name in enumerate(unsaid)}
    if "sources" in found:
        checks.check_sizes(len(dataset.classes), sources=found["sources"])
    return [found[name] for name in sizes]


def examples_of(dataset: Dataset) -> Examples:
    """On the device, with labels."""
    y = np.repeat(np.arange(len(dataset.counts), dtype=np.int32), dataset.counts)
    return Examples(jax.tree.map(jnp.asarray, dataset.x), jnp.asarray(y))


def shapes_of(dataset: Dataset) -> list:
    """Shape and type of one example, of each array of its inputs."""
    return [(a.shape[1:], str(a.dtype)) for a in jax.tree.leaves(dataset.x)]
