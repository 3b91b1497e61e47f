"""Samplers made of samplers: several domains mixed, sets changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks
from jaxmeta.keys import purpose
from jaxmeta.tasks.plain import as_pytree, one_program, task_shapes
from jaxmeta.types import Batch, Sampler, Task

Change = Callable[[jax.Array, Batch], Batch]


@partial(
    jax.tree_util.register_dataclass, data_fields=["parts", "weights"], meta_fields=[]
)
@dataclass(frozen=True)
class Mixed:
    """A distribution over the tasks of several samplers."""

    parts: tuple[Any, ...]
    weights: jax.Array  # [parts]

    @property
    def ways(self) -> int | None:
        """Classes of an episode."""
        return getattr(self.parts[0], "ways", None)

    @one_program
    def sample(self, key: jax.Array) -> Task:
        """One task of one of them, drawn by its weight."""
        key_part, *own = jax.random.split(key, 1 + len(self.parts))
        part = jax.random.categorical(key_part, jnp.log(self.weights))
        drawn = [s.sample(key) for s, key in zip(self.parts, own, strict=True)]
        return jax.tree.map(lambda *a: jax.lax.select_n(part, *a), *drawn)


def mixed(samplers: Sequence[Sampler], weights: Any = None) -> Mixed:
    """Tasks of several domains: train on some, test on others.

    Args: samplers: whose tasks have the same shapes and types. weights: [samplers] how
        often each is drawn, in proportion; None = alike.
    Returns: a sampler. Raises: ValueError for no sampler, tasks that differ in shape, or
        weights that are no positive numbers, one a sampler.

    >>> import jaxmeta as jm
    >>> low = jm.tasks.sinusoid(5, 5, amplitude=(0.1, 1.0))
    >>> high = jm.tasks.sinusoid(5, 5, amplitude=(4.0, 5.0))
    >>> mixed([low, high], weights=[3, 1]).sample(jax.random.key(0)).support.x.shape
    (5, 1)
    """
    if not isinstance(samplers, (list, tuple)) or not samplers:
        raise ValueError(
            f"samplers: expected a list of samplers, got {checks.said(samplers)}"
        )
    for sampler in samplers:
        checks.check_sampler(sampler, "samplers")
    parts = tuple(as_pytree(s, "samplers") for s in samplers)
    shapes = [task_shapes(s) for s in parts]
    for i, other in enumerate(shapes):
        if other != shapes[0]:
            raise ValueError(
                f"samplers: expected tasks of one shape and type, got {shapes[0]} of the "
                f"first and {other} of number {i}"
            )
    weights = np.ones(len(parts)) if weights is None else np.asarray(weights, float)
    if weights.shape != (len(parts),) or not (weights > 0).all():
        raise ValueError(
            f"weights: expected {len(parts)} positive numbers, got {weights.tolist()}"
        )
    return Mixed(parts, jnp.asarray(weights, jnp.float32))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["sampler"],
    meta_fields=["support", "query"],
)
@dataclass(frozen=True)
class Changed:
    """A distribution over the tasks of a sampler, with sets that are changed."""

    sampler: Any
    support: Change | None
    query: Change | None

    @property
    def ways(self) -> int | None:
        """Classes of an episode."""
        return getattr(self.sampler, "ways", None)

    def sample(self, key: jax.Array) -> Task:
        """One task of the sampler; the changes draw from keys of their own."""
        support, query = self.sampler.sample(jax.random.clone(key))
        if self.support is not None:
            support = self.support(purpose(key, "support"), support)
        if self.query is not None:
            query = self.query(purpose(key, "query"), query)
        return Task(support, query)


def changed(
    sampler: Sampler, *, support: Change | None = None, query: Change | None = None
) -> Changed:
    """Tasks whose sets are changed as a whole, e.g. by mixup of the support set.

    Args: sampler: of tasks. support, query: (key, batch) -> batch of the same shapes, e.g.
        `jm.tasks.augment.mixup()`; None = as it is.
    Returns: a sampler. Raises: ValueError for what is no function or no sampler.

    >>> import jaxmeta as jm
    >>> sampler = jm.tasks.sinusoid(shots=5, queries=5)
    >>> doubled = changed(sampler, support=lambda key, b: b._replace(y=2 * b.y))
    >>> key = jax.random.key(0)
    >>> bool((doubled.sample(key).support.y == 2 * sampler.sample(key).support.y).all())
    True
    """
    checks.check_sampler(sampler)
    for name, change in {"support": support, "query": query}.items():
        if change is not None:
            checks.check_functions(**{name: change})
    return Changed(as_pytree(sampler), support, query)
