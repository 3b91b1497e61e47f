"""Batches of examples: padding, one-hot labels, joining, order; and of tasks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxmeta.types import (
    Batch,
    Model,
    PyTree,
    Tagged,
)


def to_device(a: Any) -> jax.Array:
    """An array of numpy as `jnp.asarray` takes it, which compiles a program for each shape
    unless it is told the type, and for each that is wider than JAX's."""
    if not isinstance(a, np.ndarray):
        return jnp.asarray(a)
    dtype = jax.dtypes.canonicalize_dtype(a.dtype)
    with np.errstate(all="ignore"):  # as JAX rounds, in silence
        return jnp.asarray(a.astype(dtype, copy=False), dtype)


def examples(batch: Batch) -> int:
    """How many examples a batch has, padding included; x may be any pytree of arrays."""
    return jax.tree.leaves(batch.x)[0].shape[0]


def forward(model: Model, params: PyTree, x: jax.Array, mask=None) -> Any:
    """Apply a model, handing it the mask if it needs one."""
    return model.apply(params, x, mask) if model.uses_mask else model.apply(params, x)


def blank_padding(batch: Batch) -> Batch:
    """Put a copy of the first example that counts where the mask is 0, so that not even a
    NaN in the padding is seen.

    It is an example like the others, so a network makes numbers of it: of zeros (a text
    without a word) it may make NaN, whose derivative no mask stops.
    """
    if batch.mask is None:
        return batch
    traced = any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves(batch))
    return _blank_padding(batch) if traced else _blanked(batch)


def _blank_padding(batch: Batch) -> Batch:
    assert batch.mask is not None
    counts = batch.mask > 0
    first, none = jnp.argmax(counts), ~jnp.any(counts)

    def blank(a):
        if jnp.issubdtype(a.dtype, jax.dtypes.extended):
            return a  # a random key is never NaN
        rows = jnp.reshape(counts, (-1,) + (1,) * (a.ndim - 1))
        one = jnp.where(none, jnp.zeros_like(a[0]), a[first])
        return jnp.where(rows, a, one[None])

    y = jax.tree.map(blank, batch.y)
    return Batch(of_examples(blank, batch.x), y, batch.mask)


_blanked = jax.jit(_blank_padding)  # outside a program: one, not one an operation


def of_examples(f: Callable, x: PyTree, *others: PyTree) -> PyTree:
    """f of each array of x [examples, ...] (and of its like in others), tags left alone.

    The result has the tag of x.
    """
    if isinstance(x, Tagged):
        rest = (o.x if isinstance(o, Tagged) else o for o in others)
        return Tagged(of_examples(f, x.x, *rest), x.tag)
    return jax.tree.map(f, x, *map(untagged, others))


def untagged(x: PyTree) -> PyTree:
    """The arrays [examples, ...] of x, without tags."""
    return untagged(x.x) if isinstance(x, Tagged) else x


def columns(x: PyTree) -> jax.Array:
    """Examples as rows of a table, [examples, numbers]: the arrays of a tree side by side,
    each flattened, whole numbers as floating ones."""
    for leaf in jax.tree.leaves(x, is_leaf=lambda a: isinstance(a, Tagged)):
        if isinstance(leaf, Tagged):
            leaf.__jax_array__()  # says that tags have no place here
    parts = [jnp.reshape(a, (a.shape[0], -1)) for a in jax.tree.leaves(x)]
    floating = [a.dtype for a in parts if jnp.issubdtype(a.dtype, jnp.floating)]
    dtype = jnp.result_type(*floating) if floating else jnp.result_type(float)
    parts = [a.astype(dtype) for a in parts]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


def one_hot(labels, ways: int, mask, dtype):
    """[examples] integers -> [examples, ways]; the rows of masked examples are 0."""
    rows = (labels[:, None] == jnp.arange(ways)[None, :]).astype(dtype)
    return rows if mask is None else jnp.where(mask[:, None] > 0, rows, 0)


def concatenate(a: Batch, b: Batch) -> Batch:
    """One batch of the examples of two."""
    join = lambda u, v: jnp.concatenate([u, v])
    whole = lambda batch: (
        jnp.ones(examples(batch)) if batch.mask is None else batch.mask
    )
    mask = None
    if a.mask is not None or b.mask is not None:
        mask = join(whole(a), whole(b))
    return Batch(of_examples(join, a.x, b.x), jax.tree.map(join, a.y, b.y), mask)


def shuffled(key: jax.Array | None, rows: PyTree) -> PyTree:
    """Arrays [examples, ...] in one random order; as they are without a key."""
    if key is None:
        return rows
    order = jax.random.permutation(key, len(jax.tree.leaves(rows)[0]))
    return jax.tree.map(lambda a: a[order], rows)


def precise(a: jax.Array) -> jax.Array:
    """At least single precision, which is what linear algebra is there for."""
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))


@jax.custom_batching.custom_vmap
def for_all(holds: jax.Array) -> jax.Array:
    """Whether something [] holds for all that is vmapped over: one answer for them, with
    which a `cond` runs one branch, where it would run both and choose."""
    return holds


@for_all.def_vmap
def _(axis_size, in_batched, holds):
    del axis_size, in_batched
    return for_all(jnp.all(holds, axis=0)), False
