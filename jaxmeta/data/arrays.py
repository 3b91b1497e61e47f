"""A data set from arrays in memory, in any order, and their labels."""

import numbers
from typing import Any

import jax
import numpy as np

from jaxmeta import checks
from jaxmeta.data.dataset import Dataset


def from_arrays(
    x: Any,
    labels: Any,
    *,
    targets: Any = None,
    groups: Any = None,
    scale: bool = True,
    name: str = "arrays",
    split: str = "",
) -> Dataset:
    """A data set from examples in any order and their labels.

    Args:
        x: [examples, ...], images, series, feature vectors: uint8 in 0..255 or floating,
            of any byte order; other integers are numbers of tokens and stay what they
            are. A dict, tuple or other pytree of such arrays makes inputs that are trees.
        labels: [examples], integers or strings, not both; each different one is a class.
        targets: [examples, ...], or a pytree, where a label says which *task* an example
            belongs to (a user, a site) and this is what to predict: `jm.tasks.by_task`.
        groups: [examples], strings, a group for each class (its alphabet, its domain).
        scale: whether uint8 are brightness, taken as 0..1; False = numbers of tokens.
        name, split: what messages and reports call it.

    Returns: a `Dataset`, classes in sorted order.
    Raises: ValueError for shapes that do not fit, no example, NaN or infinite values,
        numbers that 32 bits can't hold, labels of several types (1 and "1"), a class in
        two groups.

    >>> import numpy as np
    >>> data = from_arrays(np.zeros((4, 2, 2, 1)), ["b", "a", "b", "b"])
    >>> data.classes, data.counts.tolist(), data.of("b").shape
    (('a', 'b'), [1, 3], (3, 2, 2, 1))
    """
    checks.check_names(name=name, split=split)
    checks.check_flags(scale=scale)
    tree = isinstance(x, (dict, tuple))  # a list is an array's rows
    x = _arrays(x, f"x ({name})")
    if not scale:
        whole = lambda a: a.astype(np.int32) if a.dtype == np.uint8 else a
        x = jax.tree.map(whole, x)
    labels = _to_labels(labels)
    arrays = jax.tree.leaves(x)
    if labels.ndim != 1 or {len(a) for a in arrays} != {len(labels)} or not len(labels):
        shapes = [a.shape for a in arrays]
        raise ValueError(
            f"from_arrays: expected images [examples, ...] and labels [examples], got "
            f"shapes {shapes if tree else shapes[0]} and {labels.shape}"
        )
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(index, kind="stable")
    spelled = tuple(_spelled(c) for c in classes)
    return Dataset(
        name,
        split,
        jax.tree.map(lambda a: a[order], x),
        counts.astype(np.int32),
        spelled,
        _groups(groups, index, spelled),
        None if targets is None else _targets(targets, order),
        order,
    )


def _spelled(label) -> str:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)


def _arrays(x: Any, what: str) -> Any:
    """Each array of a tree as `to_images`."""
    if not isinstance(x, (dict, tuple)):
        return to_images(x, what)
    return jax.tree.map(lambda a: to_images(a, what), x, is_leaf=_is_leaf)


def _is_leaf(a) -> bool:
    return not isinstance(a, (dict, tuple))


def _targets(targets: Any, order: np.ndarray) -> Any:
    """Targets in the order of the classes; scalars stay scalars."""

    def one(a):
        a = checks.to_array("targets", a)
        if a.shape[:1] != order.shape or a.dtype.kind not in "biuf":
            raise ValueError(
                f"targets: expected numbers [{len(order)}, ...], one an example, got "
                f"shape {a.shape} of {a.dtype}"
            )
        checks.check_finite(a, "targets")
        kinds = {"f": np.float32, "b": np.bool_}
        with np.errstate(over="ignore"):
            small = a[order].astype(kinds.get(a.dtype.kind, np.int32))
        whole = a.dtype.kind in "iu"
        if not (np.array_equal(small, a[order]) if whole else np.isfinite(small).all()):
            raise ValueError("targets: expected numbers of 32 bits, got larger ones")
        return small

    return jax.tree.map(one, targets, is_leaf=_is_leaf)


def _groups(groups: Any, index: np.ndarray, classes) -> tuple[str, ...]:
    if groups is None:
        return ("",) * len(classes)
    groups = _to_labels(groups, "groups").astype(str)
    if groups.shape != index.shape:
        raise ValueError(
            f"groups: expected one an example, {index.shape}, got {groups.shape}"
        )
    found = [np.unique(groups[index == i]).tolist() for i in range(len(classes))]
    for name, own in zip(classes, found, strict=True):
        if len(own) > 1:
            raise ValueError(f"groups: class {name!r} is in {own[0]!r} and {own[1]!r}")
    return tuple(own[0] for own in found)


def to_images(images: Any, what: str) -> np.ndarray:
    """Examples as an array [examples, ...] of integers or finite floating numbers.

    Raises: ValueError for anything else.
    """
    images = checks.to_array(what, images)
    if images.dtype in (np.float64, np.longdouble):
        with np.errstate(over="ignore"):  # what is too large is infinite, and refused
            images = images.astype(np.float32)
    if images.dtype.kind in "iu" and images.dtype != np.uint8:
        small = images.astype(np.int32)  # all that JAX has by default
        if not np.array_equal(small, images):
            raise ValueError(
                f"{what}: expected whole numbers of 32 bits, got larger ones"
            )
        images = small
    elif images.dtype != np.uint8 and not checks.is_floating(images):
        raise ValueError(
            f"{what}: expected images of type uint8 (0..255), whole numbers (tokens) or "
            f"floating, got {images.dtype}"
        )
    if images.ndim == 0 or 0 in images.shape[1:]:
        raise ValueError(
            f"{what}: expected images [examples, ...] with at least one number each, got "
            f"shape {images.shape}"
        )
    checks.check_finite(images, what)
    return images


def _to_labels(labels: Any, what: str = "labels") -> np.ndarray:
    """Labels of one type, integers or strings.

    numpy makes strings of mixed labels, and one class of 1, "1" and True.
    """
    if not hasattr(labels, "dtype") or labels.dtype == object:
        each = np.asarray(labels, object)
        kinds = {type(label) for label in each.flat}
        whole = (
            all(issubclass(k, numbers.Integral) for k in kinds) and bool not in kinds
        )
        alike = whole or all(issubclass(k, str) for k in kinds)
        if (len(kinds) > 1 and not alike) or kinds & {list, tuple}:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise ValueError(
                f"{what}: expected integers or strings, all of one type, got {names}"
            )
        labels = each.tolist()
    labels = np.asarray(labels)
    if labels.size and labels.dtype.kind not in "biuSU":
        raise ValueError(
            f"{what}: expected integers or strings, got {labels.dtype}; of whole numbers "
            f"{what}.astype(int) makes integers"
        )
    return labels
