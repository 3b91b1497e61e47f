"""Distributions over pairs of domains, made of one data set.

The target of a pair is part of the data set, changed at random, the same change for all of
its examples: turned (`rotated`), or each feature shifted and scaled (`shifted`). So what
adapts to a target without labels can be meta-learned, and no label of the target that it
is meant for is needed.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.data.dataset import Dataset
from jaxmeta.tasks.augment import warped
from jaxmeta.tasks.domains import (
    Examples,
    Sizes,
    check_domain,
    classes_first,
    divided,
    examples_of,
    shapes_of,
    task_of,
)
from jaxmeta.tasks.plain import one_program
from jaxmeta.types import Task


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["examples", "change"],
    meta_fields=["ways", "sizes"],
)
@dataclass(frozen=True)
class Pairs:
    """A distribution over pairs of domains: the target is the source, changed."""

    examples: Examples
    change: Any  # (key, x [n, ...]) -> x, the same change of all
    ways: int
    sizes: Sizes

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One task, as `Domains` has it; no example is in two of its sets."""
        key_examples, key_change = jax.random.split(key)
        order = classes_first(key_examples, self.examples.y, self.ways)
        first = self.sizes.sources
        rest = self.examples.at(order[first : sum(self.sizes)])
        rest = rest._replace(x=self.change(key_change, rest.x))
        return task_of(self.examples.at(order[:first]), rest, self.sizes)


@partial(jax.tree_util.register_dataclass, data_fields=["low", "high"], meta_fields=[])
@dataclass(frozen=True)
class Turn:
    """A random turn, counterclockwise, of points or images."""

    low: jax.Array  # [] degrees
    high: jax.Array

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """x [n, 2] about the origin, or [n, h, w, c] about the centre."""
        angle = jax.random.uniform(key, minval=self.low, maxval=self.high)
        cos, sin = jnp.cos(jnp.deg2rad(angle)), jnp.sin(jnp.deg2rad(angle))
        inverse = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])
        if x.ndim == 2:
            return x @ inverse
        return jax.vmap(warped, (0, None, None))(x, inverse, jnp.zeros(2))


def rotated(
    dataset: Dataset,
    angles: tuple[float, float] = (-45.0, 45.0),
    *,
    sources: int | None = None,
    targets: int | None = None,
    queries: int | None = None,
) -> Pairs:
    """Tasks whose target is the source, turned by an angle of its own.

    Args:
        dataset: points in the plane, which turn about the origin, or images, about their
            centre (bilinear, 0 outside).
        angles: (least, most) degrees counterclockwise, uniform.
        sources, targets, queries: examples of a task, all different, drawn anew for each;
            one of each class at least among the sources; None = an equal share of what is
            left.

    Returns: a sampler. Raises: ValueError for inputs that do not turn, fewer sources than
        classes, or more examples than there are.

    >>> import numpy as np, jaxmeta as jm
    >>> east = jm.data.from_arrays(np.tile([[1.0, 0.0]], (6, 1)), list("aaabbb"))
    >>> task = rotated(east, (90, 90)).sample(jax.random.key(0))
    >>> [(x.round(3) + 0).tolist() for x in (task.support.x[0], task.query.x[0])]
    [[1.0, 0.0], [0.0, 1.0]]
    """
    check_domain("dataset", dataset)
    checks.check_ranges(angles=angles)
    shapes = shapes_of(dataset)
    shape = shapes[0][0] if len(shapes) == 1 else ()
    if shape != (2,) and len(shape) != 3:
        raise ValueError(
            "dataset: expected points [2] or images [height, width, channels] to turn, "
            f"got examples of {shapes}"
        )
    turn = Turn(*(jnp.asarray(angle, jnp.float32) for angle in angles))
    return _pairs(dataset, turn, sources, targets, queries)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["mean", "std", "shift", "scale"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Shift:
    """A random change of the place and the spread of each feature."""

    mean: jax.Array  # [...] of the data set
    std: jax.Array
    shift: jax.Array  # []
    scale: jax.Array

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """x [n, ...]."""
        key_shift, key_scale = jax.random.split(key)
        draw = lambda key: jax.random.uniform(key, self.mean.shape, minval=-1, maxval=1)
        middle = self.mean + self.shift * self.std * draw(key_shift)
        factor = jnp.exp(self.scale * draw(key_scale))
        return (x - self.mean[None]) * factor[None] + middle[None]


def shifted(
    dataset: Dataset,
    shift: float = 1.0,
    scale: float = 0.5,
    *,
    sources: int | None = None,
    targets: int | None = None,
    queries: int | None = None,
) -> Pairs:
    """Tasks whose target is the source, each feature shifted and scaled.

    Args:
        dataset: floating arrays of any shape; each number of an example is a feature.
        shift: up to how many standard deviations a feature moves, uniform.
        scale: up to how much the logarithm of its spread changes, uniform.
        sources, targets, queries: as in `rotated`.

    Returns: a sampler. Raises: ValueError for inputs that are no floating array, negative
        numbers, fewer sources than classes, or more examples than there are.

    >>> import numpy as np, jaxmeta as jm
    >>> data = jm.data.from_arrays(np.arange(12.0).reshape(6, 2), list("aaabbb"))
    >>> task = shifted(data).sample(jax.random.key(0))
    >>> task.support.x.shape, task.query.x.shape
    ((4, 2), (2, 2))
    """
    check_domain("dataset", dataset)
    checks.check_numbers(least=0, shift=shift, scale=scale)
    x = dataset.x
    if isinstance(x, (dict, tuple)) or not checks.is_floating(x):
        raise ValueError(
            "dataset: expected examples that are arrays of floating numbers, got "
            f"{shapes_of(dataset)}"
        )
    numbers = (x.mean(0), x.std(0), shift, scale)
    change = Shift(*(jnp.asarray(a, jnp.float32) for a in numbers))
    return _pairs(dataset, change, sources, targets, queries)


def _pairs(dataset, change, sources, targets, queries) -> Pairs:
    sizes = divided(dataset, sources=sources, targets=targets, queries=queries)
    return Pairs(examples_of(dataset), change, len(dataset.classes), Sizes(*sizes))
