"""Texts as vectors without a vocabulary or a network: counts of hashed character n-grams.

Weinberger, Dasgupta, Langford, Smola, Attenberg. Feature Hashing for Large Scale Multitask
Learning. ICML 2009, arXiv 0902.2206; counted by scikit-learn's `HashingVectorizer`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmeta import checks
from jaxmeta.data.arrays import from_arrays
from jaxmeta.data.dataset import Dataset


def from_texts(
    texts: Sequence[Any],
    labels: Any,
    *,
    dims: int = 2048,
    sizes: tuple[int, int] = (2, 4),
    groups: Any = None,
    name: str = "texts",
    split: str = "",
) -> Dataset:
    """A data set of texts, as vectors of `hashed`, and their labels.

    Args: texts: [examples], strings, or tuples of as many strings. dims, sizes: as in
        `hashed`. labels, groups, name, split: as in `jm.data.from_arrays`.
    Returns: a `Dataset`, x float32 [examples, dims times the texts of an example].
    Raises: ValueError as `hashed` and `jm.data.from_arrays`.

    >>> data = from_texts(["to be", "or not", "to bee"], ["a", "b", "a"])
    >>> data.classes, data.counts.tolist(), data.x.shape
    (('a', 'b'), [2, 1], (3, 2048))
    """
    x = hashed(texts, dims=dims, sizes=sizes)
    return from_arrays(x, labels, groups=groups, name=name, split=split)


def hashed(
    texts: Sequence[Any], *, dims: int = 2048, sizes: tuple[int, int] = (2, 4)
) -> np.ndarray:
    """Counts of the n-grams of characters within words, in lower case.

    A hash says which entry an n-gram adds to and with which sign, so there is nothing to be
    learned of a corpus, and a new text has its vector at once.

    Args: texts: [n], strings, or tuples of as many strings (a sentence and a hypothesis),
        whose vectors are joined. dims: entries of the vector of one string. sizes: the
        shortest and the longest n-gram.
    Returns: float32 [n, dims], or [n, strings * dims]; each vector has length 1, or is 0.
    Raises: ValueError for no text, anything but strings, tuples of different lengths;
        ModuleNotFoundError where scikit-learn is not installed.

    >>> import numpy as np
    >>> one, two, three = hashed(["Colour me in", "colours", "grey"])
    >>> bool(one @ two > 0.5), bool(abs(one @ three) < 0.1)
    (True, True)
    """
    check_hashing(dims, sizes)
    try:
        from sklearn.feature_extraction.text import HashingVectorizer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "texts: expected scikit-learn, which is not installed; "
            "pip install 'jaxmeta[text]'"
        ) from error
    how: Any = {"analyzer": "char_wb", "ngram_range": sizes, "n_features": dims}
    count: Any = HashingVectorizer(**how)
    vectors = [count.transform(column).toarray() for column in _columns(texts)]
    return np.concatenate(vectors, axis=1).astype(np.float32)


def check_hashing(dims: int, sizes: tuple[int, int]) -> None:
    """Raise ValueError unless they are sizes, the shortest n-gram first."""
    checks.check_sizes(dims=dims)
    checks.check_shapes(2, sizes=sizes)
    if sizes[0] > sizes[1]:
        raise ValueError(f"sizes: expected the shortest first, got {sizes}")


def _columns(texts: Sequence[Any]) -> list[tuple[str, ...]]:
    """The first string of each example, the second, ..."""
    several = hasattr(texts, "__len__") and getattr(texts, "ndim", 1) > 0
    if isinstance(texts, (str, bytes, dict)) or not several or not len(texts):
        raise ValueError(f"texts: expected several strings, got {checks.said(texts)}")
    group = tuple, list, np.ndarray
    rows = [tuple(row) if isinstance(row, group) else (row,) for row in texts]
    for i, row in enumerate(rows):
        if len(row) != max(len(rows[0]), 1) or not all(map(is_text, row)):
            raise ValueError(
                "texts: expected strings, or tuples of as many strings, "
                f"{len(rows[0])} in the first, got {checks.said(row)} in text {i}"
            )
    return list(zip(*rows, strict=True))


def is_text(value: Any) -> bool:
    """A string that can be written: half of a pair of UTF-16 is none."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False
