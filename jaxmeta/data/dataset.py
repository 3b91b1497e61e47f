"""A data set for few-shot learning: examples in class-major order."""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxmeta import checks


@dataclass(frozen=True)
class Dataset:
    """Examples by class, on the host; `jm.tasks.episodes` puts them on the device.

    name, split: what it is. images: [classes, most examples, ...], uint8 in 0..255 or
    floating, or a pytree of such arrays; rows beyond a class's count are padding.
    counts: [classes] int32. classes: a name each. groups: the script or alphabet of each
    class, or "".
    """

    name: str
    split: str
    images: Any
    counts: np.ndarray
    classes: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def title(self) -> str:
        """Name and split, for messages."""
        return f"{self.name}/{self.split}" if self.split else self.name

    def select(self, chosen: Sequence[int], split: str) -> "Dataset":
        """The data set of some of the classes, in the order given.

        Raises: ValueError for a number of a class that is not there.
        """
        for i in chosen:
            checks.check_sizes(0, len(self.counts) - 1, chosen=i)
        return Dataset(
            self.name,
            split,
            jax.tree.map(lambda a: a[list(chosen)], self.images),
            self.counts[list(chosen)],
            tuple(self.classes[i] for i in chosen),
            tuple(self.groups[i] for i in chosen),
        )


def from_arrays(
    images: Any,
    labels: Any,
    *,
    name: str = "arrays",
    split: str = "",
) -> Dataset:
    """A data set from examples in any order and their labels.

    Args:
        images: [examples, ...], uint8 in 0..255 or floating (any vectors will do), of
            any byte order; other integers are numbers of tokens and stay what they are.
            A dict, tuple or other pytree of such arrays makes inputs that are trees.
        labels: [examples], integers or strings, not both; each different one is a class.
        name, split: what messages and reports call it.

    Returns: a `Dataset`, classes in sorted order, each padded with zeros to the size of
        the largest.
    Raises: ValueError for shapes that do not fit, no example, NaN or infinite values,
        labels of several types (1 and "1").

    >>> import numpy as np
    >>> data = from_arrays(np.zeros((4, 2, 2, 1)), ["b", "a", "b", "b"])
    >>> data.classes, data.counts.tolist(), data.images.shape
    (('a', 'b'), [1, 3], (2, 3, 2, 2, 1))
    """
    checks.check_names(name=name, split=split)
    tree = isinstance(images, (dict, tuple))  # a list is an array's rows
    arrays, treedef = jax.tree.flatten(images) if tree else ([images], None)
    arrays = [to_images(a, f"{name} images") for a in arrays]
    labels = _to_labels(labels)
    numbers = {len(a) for a in arrays}
    if labels.ndim != 1 or numbers != {len(labels)} or len(labels) == 0:
        shapes = [a.shape for a in arrays]
        raise ValueError(
            f"from_arrays: expected images [examples, ...] and labels [examples], got "
            f"shapes {shapes if tree else shapes[0]} and {labels.shape}"
        )
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(index, kind="stable")
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)

    def by_class(a):
        padded = np.zeros((len(classes), counts.max(), *a.shape[1:]), a.dtype)
        padded[index[order], place] = a[order]
        return padded

    made = [by_class(a) for a in arrays]
    return Dataset(
        name,
        split,
        made[0] if treedef is None else jax.tree.unflatten(treedef, made),
        counts.astype(np.int32),
        tuple(str(c) for c in classes),
        ("",) * len(classes),
    )


def to_images(images: Any, what: str) -> np.ndarray:
    """Examples as an array [examples, ...] of integers or finite floating numbers.

    Raises: ValueError for anything else.
    """
    images = checks.to_array(what, images)
    if images.dtype in (np.float64, np.longdouble):
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


def _to_labels(labels: Any) -> np.ndarray:
    """Labels of one type, integers or strings.

    numpy makes strings of mixed labels, and one class of 1, "1" and True.
    """
    if not hasattr(labels, "dtype") or labels.dtype == object:
        each = np.asarray(labels, object)
        kinds = {type(label) for label in each.flat}
        whole = (
            all(issubclass(k, numbers.Integral) for k in kinds) and bool not in kinds
        )
        if len(kinds) > 1 and not (whole or all(issubclass(k, str) for k in kinds)):
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise ValueError(
                f"labels: expected integers or strings, all of one type, got {names}"
            )
        labels = each.tolist()
    labels = np.asarray(labels)
    if labels.size and labels.dtype.kind not in "biuSU":
        raise ValueError(
            f"labels: expected integers or strings, got {labels.dtype}; of whole numbers "
            "labels.astype(int) makes integers"
        )
    return labels
