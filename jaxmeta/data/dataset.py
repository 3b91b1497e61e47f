"""A data set for few-shot learning: examples in class-major order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmeta import checks


@dataclass(frozen=True)
class Dataset:
    """Examples by class, on the host; `jm.tasks.episodes` puts them on the device.

    name, split: what it is. images: [classes, most examples, ...], uint8 in 0..255 or
    floating; rows beyond a class's count are padding. counts: [classes] int32.
    classes: a name each. groups: the script or alphabet of each class, or "".
    """

    name: str
    split: str
    images: np.ndarray
    counts: np.ndarray
    classes: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def title(self) -> str:
        """Name and split, for messages."""
        return f"{self.name}/{self.split}" if self.split else self.name

    def select(self, chosen: Sequence[int], split: str) -> "Dataset":
        """The data set of some of the classes, in the order given."""
        return Dataset(
            self.name,
            split,
            self.images[list(chosen)],
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
        images: [examples, ...], uint8 in 0..255 or floating (any vectors will do).
        labels: [examples], integers or strings; each different one is a class.
        name, split: what messages and reports call it.

    Returns: a `Dataset`, classes in sorted order, each padded with zeros to the size of
        the largest.
    Raises: ValueError for shapes that do not fit, no example, NaN or infinite values.

    >>> import numpy as np
    >>> data = from_arrays(np.zeros((4, 2, 2, 1)), ["b", "a", "b", "b"])
    >>> data.classes, data.counts.tolist(), data.images.shape
    (('a', 'b'), [1, 3], (2, 3, 2, 2, 1))
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if labels.ndim != 1 or len(images) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"from_arrays: expected images [examples, ...] and labels [examples], got "
            f"shapes {images.shape} and {labels.shape}"
        )
    if images.dtype == np.float64:
        images = images.astype(np.float32)
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"from_arrays: expected images of type uint8 (0..255) or floating, got "
            f"{images.dtype}"
        )
    checks.check_finite(images, f"{name} images")
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    padded = np.zeros((len(classes), counts.max(), *images.shape[1:]), images.dtype)
    order = np.argsort(index, kind="stable")
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    padded[index[order], place] = images[order]
    return Dataset(
        name,
        split,
        padded,
        counts.astype(np.int32),
        tuple(str(c) for c in classes),
        ("",) * len(classes),
    )
