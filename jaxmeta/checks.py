"""Bad input, said in a sentence: what was got, what was expected, what to do.

Shapes and key types are known while a program is traced and are checked always;
values (labels, NaN) only where an array is concrete, that is at the boundary.
"""

import operator

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxmeta.types import UNLABELLED, Batch, Task


def check_key(key) -> None:
    """Raise ValueError unless `key` is one typed key (`jax.random.key`)."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise ValueError(
            "key: expected a typed key from jax.random.key(seed), got "
            f"{_describe(key)}; wrap an old-style key (jax.random.PRNGKey) with "
            "jax.random.wrap_key_data(key)"
        )
    if key.shape != ():
        raise ValueError(
            f"key: expected one key, got an array of keys of shape {key.shape}"
        )


def check_batch(batch: Batch, what: str = "support") -> None:
    """Raise ValueError unless the arrays of ONE task's batch fit together."""
    if jnp.ndim(batch.x) < 1 or jnp.ndim(batch.y) < 1:
        raise ValueError(
            f"{what} set: expected arrays with a leading [examples] axis, got x "
            f"{jnp.shape(batch.x)} and y {jnp.shape(batch.y)}"
        )
    n = batch.x.shape[0]
    if n == 0:
        raise ValueError(
            f"{what} set is empty (x has shape {batch.x.shape}): expected at least one "
            "example; sample the task with shots >= 1 and queries >= 1"
        )
    if batch.y.shape[0] != n:
        raise ValueError(
            f"{what} set: x has {n} examples, y has {batch.y.shape[0]}; expected as many "
            "targets as inputs (one task at a time: use jax.vmap for a batch of tasks)"
        )
    if batch.mask is not None and jnp.shape(batch.mask) != (n,):
        raise ValueError(
            f"{what} set: mask has shape {jnp.shape(batch.mask)}, expected ({n},): "
            "one entry an example, 1 = counts, 0 = padding"
        )


def check_labels(
    batch: Batch, ways: int, what: str = "support", *, unlabelled: bool = False
) -> None:
    """Raise ValueError if concrete labels are not integers in 0..ways-1.

    unlabelled: whether `UNLABELLED` is a label too; then some other has to be there.
    """
    if not jnp.issubdtype(batch.y.dtype, jnp.integer) or batch.y.ndim != 1:
        raise ValueError(
            f"{what} labels: expected integers of shape [examples], got "
            f"{_describe(batch.y)}"
        )
    if isinstance(batch.y, jax.core.Tracer) or isinstance(batch.mask, jax.core.Tracer):
        return
    labels = np.asarray(batch.y)
    if batch.mask is not None:
        labels = labels[np.asarray(batch.mask) > 0]
    told = labels[labels != UNLABELLED]
    if unlabelled and not told.size:
        raise ValueError(
            f"{what} set: every example is unlabelled (y = {UNLABELLED}); expected at "
            "least one with a label"
        )
    labels = told if unlabelled else labels
    bad = labels[(labels < 0) | (labels >= ways)]
    if bad.size:
        hint = f" ({UNLABELLED} = unlabelled, for soft_kmeans and label_propagation)"
        raise ValueError(
            f"{what} labels: expected integers in 0..{ways - 1} ({ways} ways), got "
            f"{sorted({int(b) for b in bad})}; number the classes of each task from 0"
            f"{hint if UNLABELLED in bad else ''}"
        )


def check_choice(argument: str, value, options) -> None:
    """Raise ValueError unless the value is one of the options."""
    if value not in options:
        raise ValueError(
            f"{argument}: expected one of {', '.join(options)}, got {value!r}"
        )


def check_numbers(
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    **values,
) -> None:
    """Raise ValueError unless each value is one finite real number within the limits.

    A traced number (one that is swept over) has passed: its value is not known.
    """
    limits = {">=": least, ">": above, "<=": most, "<": below}
    said = " and ".join(f"{w} {v:g}" for w, v in limits.items() if v is not None)
    for name, value in values.items():
        if isinstance(value, jax.core.Tracer) and value.shape == ():
            continue
        if not _is_real(value) or not all(
            v is None or _HOLDS[w](float(value), v) for w, v in limits.items()
        ):
            raise ValueError(
                f"{name}: expected a number{said and ' ' + said}, got {_brief(value)}"
            )


_HOLDS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def check_positive(**values) -> None:
    """Raise ValueError unless each is a finite number > 0."""
    check_numbers(above=0, **values)


def check_sizes(least: int = 1, **sizes) -> None:
    """Raise ValueError unless each size is a whole number (any integer type, no bool)
    of at least `least`."""
    for name, size in sizes.items():
        if not _is_whole(size) or operator.index(size) < least:
            raise ValueError(
                f"{name}: expected a whole number >= {least}, got {_brief(size)}"
            )


def _is_whole(value) -> bool:
    if isinstance(value, (bool, np.bool_, jax.core.Tracer)):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _is_real(value) -> bool:
    """Whether it is one finite real number: Python's, numpy's, or an array of shape []."""
    if isinstance(value, (bool, np.bool_, str, bytes)) or np.ndim(value) != 0:
        return False
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def check_finite(array, what: str) -> None:
    """Raise ValueError if a concrete floating array has NaN or infinite entries."""
    if isinstance(array, jax.core.Tracer):
        return
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return
    bad = ~np.isfinite(np.asarray(array))
    if bad.any():
        examples = np.unique(np.nonzero(bad)[0])
        raise ValueError(
            f"{what}: {int(bad.sum())} values are NaN or infinite, first in example "
            f"{examples[0]} ({len(examples)} of {len(bad)} examples); clean or drop them"
        )


def check_task(task: Task, ways: int | None = None) -> None:
    """Raise ValueError if a concrete task has wrong shapes, labels or NaN inputs.

    Call it once on a task of a new sampler, outside jit; `fit` does.
    """
    for what, batch in (("support", task.support), ("query", task.query)):
        check_batch(batch, what)
        keep = slice(None) if batch.mask is None else np.asarray(batch.mask) > 0
        check_finite(np.asarray(batch.x)[keep], f"{what} inputs")
        check_finite(np.asarray(batch.y)[keep], f"{what} targets")
        if ways is not None:
            check_labels(batch, ways, what)


def _brief(value) -> str:
    """A number as it is written, anything else by its kind."""
    if isinstance(value, (np.generic, jax.Array)) and np.ndim(value) == 0:
        return str(value)
    return _describe(value) if hasattr(value, "shape") else repr(value)


def _describe(value) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of type {value.dtype} and shape {value.shape}"
    return f"{type(value).__name__} {value!r}"
