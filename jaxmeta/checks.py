"""Bad input, said in a sentence: what was got, what was expected, what to do.

Shapes and key types are known while a program is traced and are checked always;
values (labels, NaN) only where an array is concrete, that is at the boundary.
"""

import difflib
import math
import numbers
import operator
import os
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxmeta.batches import untagged
from jaxmeta.types import UNLABELLED, Batch, Model, Task


def check_key(key, argument: str = "key") -> None:
    """Raise ValueError unless `key` is one typed key (`jax.random.key`)."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"{argument}: expected a typed key from jax.random.key(seed), got "
            f"{said(key)}; wrap an old-style key (jax.random.PRNGKey) with "
            "jax.random.wrap_key_data(key)"
        )
    if key.shape != ():
        raise ValueError(
            f"{argument}: expected one key, got an array of keys of shape {key.shape}"
        )


def check_keys(keys, members: int | None = None) -> None:
    """Raise ValueError unless `keys` is an array of typed keys, one for each member."""
    shape = getattr(keys, "shape", ())
    if len(shape) != 1 or not len(keys) or members not in (None, len(keys)):
        raise ValueError(
            f"keys: expected an array of keys [{members or 'members'}], got {said(keys)}; "
            "make them with jax.random.split(key, members)"
        )
    check_key(jax.eval_shape(lambda keys: keys[0], keys), "keys")


def check_kind(value, kind: type, argument: str) -> None:
    """Raise ValueError unless the value is a `Batch`, a `Task`, a `MetaState`."""
    if not isinstance(value, kind):
        fields = ", ".join(getattr(kind, "_fields", ()))
        raise ValueError(
            f"{argument}: expected a jm.{kind.__name__}({fields}), got {said(value)}"
        )


def check_state(state) -> None:
    """Raise ValueError unless it has what each state of an `Outer` has."""
    for name in ("params", "step"):
        if not hasattr(state, name):
            raise ValueError(
                "state: expected a jm.MetaState(params, opt_state, step), or a state as "
                f"the Outer's init makes it, with {name!r}, got {said(state)}"
            )


def check_mask(inputs, mask) -> None:
    """Raise ValueError unless the mask has one entry for each of the inputs."""
    n = jnp.shape(jax.tree.leaves(untagged(inputs))[0])[:1]
    if mask is not None and jnp.shape(mask) != n:
        raise ValueError(
            f"mask: expected shape {n}, one entry an example, 1 = counts, 0 = padding, "
            f"got {jnp.shape(mask)}"
        )


def check_tasks(tasks: Task) -> None:
    """Raise ValueError unless it is a batch of tasks, arrays [tasks, examples, ...]."""
    check_kind(tasks, Task, "tasks")
    for what, batch in zip(Task._fields, tasks, strict=True):
        check_kind(batch, Batch, f"tasks, {what}")
    arrays = [jax.tree.leaves((batch.y, untagged(batch.x))) for batch in tasks]
    shapes = [jnp.shape(a) for of_batch in arrays for a in of_batch]
    if min(map(len, shapes)) < 2 or len({shape[0] for shape in shapes}) > 1:
        shown = [jnp.shape(of_batch[0]) for of_batch in arrays]
        raise ValueError(
            "tasks: expected arrays [tasks, examples, ...] of as many tasks in the query "
            f"as in the support set, got y of shapes {shown[0]} and {shown[1]}; of one "
            "task jax.tree.map(lambda a: a[None], task) makes a batch"
        )


def check_batch(batch: Batch, what: str = "support") -> None:
    """Raise ValueError unless the arrays of ONE task's batch fit together."""
    inputs = jax.tree.leaves(untagged(batch.x))
    shapes = [tuple(jnp.shape(a)) for a in inputs]
    targets = [tuple(jnp.shape(a)) for a in jax.tree.leaves(batch.y)]
    one = lambda shapes: shapes[0] if len(shapes) == 1 else shapes
    shown = one(shapes)
    if not inputs or min(map(len, shapes + targets)) < 1:
        raise ValueError(
            f"{what} set: expected arrays with a leading [examples] axis, got x "
            f"{shown} and y {one(targets)}"
        )
    n = shapes[0][0]
    if n == 0:
        raise ValueError(
            f"{what} set is empty (x has shape {shown}): expected at least one "
            "example; sample the task with shots >= 1 and queries >= 1"
        )
    if any(shape[0] != n for shape in shapes):
        raise ValueError(
            f"{what} set: the arrays of x have shapes {shapes}; expected as many "
            "examples in each, on the first axis"
        )
    if wrong := [shape[0] for shape in targets if shape[0] != n]:
        raise ValueError(
            f"{what} set: x has {n} examples, y has {wrong[0]}; expected as many "
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
    dtype = getattr(batch.y, "dtype", None)
    whole = dtype is not None and jnp.issubdtype(dtype, jnp.integer)
    if not whole or batch.y.ndim != 1:
        raise ValueError(
            f"{what} labels: expected integers of shape [examples], got "
            f"{said(batch.y)}; class numbers: y.astype(int).reshape(-1); whole-number "
            "regression targets: y.astype(float)"
        )
    if isinstance(batch.y, jax.core.Tracer) or isinstance(batch.mask, jax.core.Tracer):
        return
    labels = np.asarray(batch.y)
    if batch.mask is not None:
        labels = labels[np.asarray(batch.mask) > 0]
    labelled = labels[labels != UNLABELLED]
    if unlabelled and not labelled.size:
        raise ValueError(
            f"{what} set: every example is unlabelled (y = {UNLABELLED}); expected at "
            "least one with a label"
        )
    labels = labelled if unlabelled else labels
    bad = labels[(labels < 0) | (labels >= ways)]
    if bad.size:
        hint = f" ({UNLABELLED} = unlabelled, for soft_kmeans and label_propagation)"
        raise ValueError(
            f"{what} labels: expected integers in 0..{ways - 1} ({ways} ways), got "
            f"{sorted({int(b) for b in bad})}; number the classes of each task from 0"
            f"{hint if UNLABELLED in bad else ''}; whole-number regression targets: "
            "y.astype(float)"
        )


def check_unlabelled(support: Batch) -> None:
    """Raise ValueError where it can be seen that no support example is unlabelled, or that
    all labels are one class."""
    if any(isinstance(a, jax.core.Tracer) for a in (support.y, support.mask)):
        return
    labels = np.asarray(support.y)
    if support.mask is not None:
        labels = labels[np.asarray(support.mask) > 0]
    if not (labels == UNLABELLED).any():
        raise ValueError(
            f"support set: no example is unlabelled (y = {UNLABELLED}), the unlabelled set "
            "is empty; sample tasks with unlabelled >= 1, give examples of a target domain "
            f"the label {UNLABELLED}, or use protonet"
        )
    classes = set(labels[labels != UNLABELLED].tolist())
    if len(classes) == 1:
        raise ValueError(
            f"support set: every labelled example is of class {classes.pop()}; expected at "
            "least two classes: a label is a class, and no number of a domain"
        )


def lookup(table: dict[str, Any], name: str, what: str) -> Any:
    """`table[name]`, or a ValueError that lists the names and suggests the nearest."""
    word = name if isinstance(name, str) else ""
    if word in table:
        return table[word]
    near = difflib.get_close_matches(word, table, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"unknown {what} {name!r}: expected one of {', '.join(table)}{hint}"
    )


def check_choice(argument: str, value, options) -> None:
    """Raise ValueError unless the value is one of the options, which are names."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(
            f"{argument}: expected one of {', '.join(options)}, got {said(value)}"
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
    limits = {w: v for w, v in limits.items() if v is not None}
    wanted = " ".join(["a number", *(f"{w} {v:g}" for w, v in limits.items())])
    if len(limits) == 2:
        (first, low), (last, high) = limits.items()
        sides = "[" if first == ">=" else "(", "]" if last == "<=" else ")"
        wanted = f"a number in {sides[0]}{low:g}, {high:g}{sides[1]}"
    for name, value in values.items():
        if isinstance(value, jax.core.Tracer) and value.shape == ():
            continue
        within = _is_real(value) and all(
            _HOLDS[w](float(value), v) for w, v in limits.items()
        )
        if not within:
            raise ValueError(f"{name}: expected {wanted}, got {said(value)}")


_HOLDS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def check_positive(**values) -> None:
    """Raise ValueError unless each is a finite number > 0."""
    check_numbers(above=0, **values)


def check_ranges(least: float | None = None, **ranges) -> None:
    """Raise ValueError unless each is a pair of finite numbers (low, high), low <= high."""
    for name, value in ranges.items():
        several = isinstance(value, (tuple, list)) or np.shape(value)[:1] == (2,)
        if not several or len(value) != 2:
            raise ValueError(
                f"{name}: expected a pair of numbers (low, high), got {said(value)}"
            )
        low, high = value
        check_numbers(least=least, **{f"{name}[0]": low, f"{name}[1]": high})
        traced = isinstance(low, jax.core.Tracer) or isinstance(high, jax.core.Tracer)
        if not traced and low > high:
            raise ValueError(
                f"{name}: expected (low, high) with low <= high, got {said(value)}"
            )


def check_sizes(least: int = 1, most: int | None = None, /, **sizes) -> None:
    """Raise ValueError unless each size is a whole number (any integer type, no bool)
    from `least` to `most`."""
    limit = f">= {least}" if most is None else f"in {least}..{most}"
    for name, size in sizes.items():
        if not is_whole(size) or size < least or (most is not None and size > most):
            raise ValueError(
                f"{name}: expected a whole number {limit}, got {said(size)}"
            )


def check_shapes(length: int | None = None, **shapes) -> None:
    """Raise ValueError unless each is a tuple (or list) of sizes >= 1.

    length: how many sizes; None = any number.
    """
    for name, shape in shapes.items():
        fits = isinstance(shape, (tuple, list)) and length in (None, len(shape))
        if not fits or not all(is_whole(size) and size >= 1 for size in shape):
            wanted = "a tuple of" if length is None else f"{length}"
            raise ValueError(
                f"{name}: expected {wanted} whole numbers >= 1, got {said(shape)}"
            )


def check_inputs(
    x, shape: tuple[int, ...], argument: str = "input_shape", flat: bool = False
) -> None:
    """Raise ValueError unless a network's inputs are [examples, *shape].

    Args: argument: by which the shape was given; flat: only the size has to fit.
    """
    got = jnp.shape(x)
    size = math.prod(got[1:]) == math.prod(shape)
    if got and (got[1:] == shape or (flat and size)):
        return
    hint = f"; build it with {argument}={got[1] if len(got) == 2 else got[1:]}"
    if got[1:] == shape[:-1]:
        hint = "; give them a channel axis, x[..., None]" if len(shape) > 1 else ""
    if got[2:] == shape:
        hint = "; one task at a time: use jax.vmap for a batch of tasks"
    raise ValueError(
        f"{argument}: the network was built for inputs [examples, "
        f"{', '.join(map(str, shape))}], got an array of shape {got}{hint}"
    )


def check_seeds(**seeds) -> None:
    """Raise ValueError unless each is a seed: a whole number of 32 bits.

    JAX would cut a longer one off, and give two seeds one key.
    """
    check_sizes(0, 2**32 - 1, **seeds)


def check_flags(**flags) -> None:
    """Raise ValueError unless each is True or False."""
    for name, flag in flags.items():
        if not isinstance(flag, (bool, np.bool_)):
            raise ValueError(f"{name}: expected True or False, got {said(flag)}")


def check_names(**names) -> None:
    """Raise ValueError unless each is a string."""
    for name, value in names.items():
        if not isinstance(value, str):
            raise ValueError(f"{name}: expected a string, got {said(value)}")


def check_paths(**paths) -> None:
    """Raise ValueError unless each is a path, or a string."""
    for name, path in paths.items():
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"{name}: expected a path, got {said(path)}")


def check_functions(**functions) -> None:
    """Raise ValueError unless each can be called."""
    for name, function in functions.items():
        if not callable(function):
            raise ValueError(f"{name}: expected a function, got {said(function)}")


def check_models(**models) -> None:
    """Raise ValueError unless each is a `Model`."""
    for name, model in models.items():
        whole = isinstance(model, Model)
        if not whole or not (callable(model.init) and callable(model.apply)):
            raise ValueError(
                f"{name}: expected a Model, e.g. jm.models.mlp() or a Flax network by "
                f"jm.models.from_linen or from_nnx, got {said(model)}"
            )


def check_learner(learner, argument: str = "learner") -> None:
    """Raise ValueError unless it has the functions of a `MetaLearner` (`adapt` and
    `predict` are called by the others only)."""
    what = "a MetaLearner, e.g. jm.protonet(jm.models.conv4(None))"
    check_methods(argument, learner, ("init", "loss"), what)


def check_sampler(sampler, argument: str = "sampler") -> None:
    """Raise ValueError unless it has a method `sample`."""
    what = "a sampler with a method sample(key), e.g. jm.tasks.sinusoid()"
    check_methods(argument, sampler, ("sample",), what)


def check_optimizer(optimizer, argument: str = "optimizer") -> None:
    """Raise ValueError unless it is like an `optax.GradientTransformation`."""
    what = "an optax optimiser, e.g. optax.adam(1e-3)"
    check_methods(argument, optimizer, ("init", "update"), what)


def check_methods(argument: str, value, methods, what: str) -> None:
    """Raise ValueError unless it is an object (no class) with these methods."""
    found = all(callable(getattr(value, method, None)) for method in methods)
    if isinstance(value, type) or not found:
        raise ValueError(f"{argument}: expected {what}, got {said(value)}")


def is_whole(value) -> bool:
    """Whether it is a whole number, Python's or numpy's; arrays and bools are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_real(value) -> bool:
    """Whether it is one finite real number: Python's, numpy's, or an array of shape []."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        known = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        kinds = (jnp.floating, jnp.integer)
        known = np.shape(value) == () and any(jnp.issubdtype(dtype, k) for k in kinds)
    try:
        return known and bool(np.isfinite(float(value)))
    except OverflowError:
        return False


def to_array(argument: str, value) -> np.ndarray:
    """The value as an array of numbers in the machine's byte order.

    Raises: ValueError for what is no array: lists of different lengths, objects.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{argument}: expected one array, got parts of different shapes ({error})"
        ) from error
    if array.dtype.kind not in "biufcV" or array.dtype.names:
        raise ValueError(f"{argument}: expected numbers, got {said(value)}")
    return native(array)


def native(array):
    """An array in the machine's byte order, which is the only one that JAX knows."""
    if isinstance(array, np.ndarray) and not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array


def is_floating(array) -> bool:
    """Whether it holds floating numbers, bfloat16 and its like included."""
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


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
    check_kind(task, Task, "task (what the sampler gives)")
    for what, batch in (("support", task.support), ("query", task.query)):
        check_batch(batch, what)
        keep = slice(None) if batch.mask is None else np.asarray(batch.mask) > 0
        for leaf in jax.tree.leaves(batch.x):
            check_finite(np.asarray(leaf)[keep], f"{what} inputs")
        for leaf in jax.tree.leaves(batch.y):
            check_finite(np.asarray(leaf)[keep], f"{what} targets")
        if ways is not None:
            check_labels(batch, ways, what)


def few(names, most: int = 4) -> str:
    """The first few names, and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def said(value: Any) -> str:
    """A value in a few words: type and shape of an array, a number or word as it is
    written, anything else by its kind."""
    if isinstance(value, np.generic):
        return f"{value} ({value.dtype})"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of type {value.dtype} and shape {value.shape}"
    plain = (int, float, complex, str, tuple, list, dict, type(None))
    if isinstance(value, plain) and not hasattr(value, "_fields"):
        words = repr(value)
        return words if len(words) <= 80 else f"{words[:77]}..."
    named = getattr(value, "__name__", None)
    return f"{type(value).__name__}{f' {named}' if named else ''}"
