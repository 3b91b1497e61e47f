"""A data set of the package `datasets` (Hugging Face) that the user has loaded."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmeta.checks import check_choice, check_methods, check_names, said, to_array
from jaxmeta.data.arrays import from_arrays
from jaxmeta.data.dataset import Dataset
from jaxmeta.data.images import MODES, check_alike, check_size, decoded_image


def from_huggingface(
    dataset: Any,
    *,
    image: str | None = None,
    x: str | Sequence[str] | None = None,
    label: str = "label",
    size: int | tuple[int, int] | None = None,
    mode: str = "RGB",
    name: str = "huggingface",
    split: str = "",
) -> Dataset:
    """A data set from one split that the package `datasets` has loaded.

        loaded = datasets.load_dataset("fashion_mnist", split="train")
        data = jm.data.from_huggingface(loaded, mode="L")

    Args:
        dataset: an object with `len(dataset)` and `dataset[i]`, a dict of columns.
        image: the column of images, Pillow's or arrays; "image" where neither it nor `x`
            is given.
        x: a column of numbers instead: arrays or lists, all of one shape; whole numbers
            are numbers of tokens. Of several columns in a list, inputs are a dict.
        label: the column of classes, integers or strings; named as in
            `dataset.features[label].names` where there are such.
        size: (height, width) to bring images to, or one number for both, by Pillow's
            bilinear filter; None = as they are, all of one size.
        mode: "RGB", or "L" for greys.
        name, split: what messages and reports call it.

    Returns: a `Dataset`; x uint8 [examples, height, width, 3 or 1], or [examples, ...]
        int32 or float32 (a number an example makes [examples, 1]).
    Raises: ValueError for an object of another kind, a missing column, an example that
        differs in shape or is no image.
    """
    check_names(label=label, name=name, split=split)
    check_choice("mode", mode, MODES)
    check_size(size)
    columns = _columns(image, x)
    rows = _rows(dataset)
    image = "image" if columns is None else image
    for argument, wanted in (
        ("image", [image]),
        ("x", columns or []),
        ("label", [label]),
    ):
        for column in wanted:
            _check_column(argument, column, rows)
    labels = _labels(dataset, label, [row[label] for row in rows])
    if not columns:
        arrays = _images(rows, image, size, mode)
    elif isinstance(x, str):
        arrays = _numbers(rows, x)
    else:
        arrays = {column: _numbers(rows, column) for column in columns}
    return from_arrays(arrays, labels, name=name, split=split)


def _columns(image, x) -> list[str] | None:
    """The columns of numbers; None where the default is to be taken."""
    if image is not None:
        check_names(image=image)
        if x is not None:
            raise ValueError(
                f"x: expected a column of images (image={image!r}) or of numbers "
                f"(x={said(x)}), got both; leave one out"
            )
        return []
    if x is None:
        return None
    columns = [x] if isinstance(x, str) else x
    listed = isinstance(columns, (list, tuple)) and len(columns)
    if not listed or not all(isinstance(c, str) for c in columns):
        raise ValueError(f"x: expected a column or a list of columns, got {said(x)}")
    return list(columns)


def _rows(dataset) -> list[dict]:
    """All examples."""
    what = (
        "a split loaded by the package datasets, load_dataset(..., split='train'), or "
        "another sequence of dicts"
    )
    check_methods("dataset", dataset, ("__len__", "__getitem__"), what)
    if isinstance(dataset, dict):
        raise ValueError(
            f"dataset: expected {what}, got a dict of {', '.join(map(str, dataset))[:80]}; "
            "take one of its splits, dataset['train']"
        )
    rows = [dataset[i] for i in range(len(dataset))]
    wrong = next((row for row in rows if not isinstance(row, dict)), None)
    if wrong is not None or not rows:
        got = f"examples like {said(wrong)}" if rows else "one without examples"
        raise ValueError(f"dataset: expected {what}, got {got}")
    return rows


def _check_column(argument: str, column: str | None, rows: list[dict]) -> None:
    if column is None:
        return
    for i, row in enumerate(rows):
        if column not in row:
            raise ValueError(
                f"{argument}: example {i} of the dataset has no column {column!r}; expected "
                f"one of {', '.join(map(str, row))}; name it by image= or x= and label="
            )
        if row[column] is None:
            raise ValueError(
                f"{argument}: column {column!r} of example {i} is empty (None); expected a "
                "value, leave it out by dataset.filter"
            )


def _labels(dataset, column: str, values: list) -> Any:
    """The labels; by name where the dataset has names."""
    values = [v.item() if getattr(v, "shape", None) == () else v for v in values]
    features = getattr(dataset, "features", None) or {}
    names = getattr(features.get(column), "names", None)
    if not names or isinstance(values[0], str):
        return values
    for i, value in enumerate(values):
        if not isinstance(value, (int, np.integer)) or not 0 <= value < len(names):
            raise ValueError(
                f"label: column {column!r} of example {i} is {said(value)}; expected a "
                f"whole number in 0..{len(names) - 1} (-1 is unlabelled: leave it out by "
                "dataset.filter)"
            )
    return [str(names[int(value)]) for value in values]


def _images(rows: list[dict], column, size, mode: str) -> np.ndarray:
    images = [_image(row[column], i, column, size, mode) for i, row in enumerate(rows)]
    check_alike(images, lambda i: f"image: {column} of example {i}")
    return np.stack(images)


def _image(image, i: int, column: str, size, mode: str) -> np.ndarray:
    """[height, width, channels] uint8, of Pillow's image or an array like that."""
    from PIL import Image

    what = f"image: column {column!r} of example {i}"
    if not isinstance(image, Image.Image):
        array = to_array(what, image)
        array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
        colour = array.ndim == 3 and array.shape[-1] in (3, 4)
        if not array.size or (array.ndim != 2 and not colour):
            raise ValueError(
                f"{what}: expected an image [height, width] or [height, width, 3], got "
                f"shape {array.shape}; arrays of other kinds are taken by x="
            )
        if array.min() < 0 or array.max() > 255 or array.dtype.kind not in "iu":
            raise ValueError(
                f"{what}: expected whole numbers in 0..255, got {array.dtype}; arrays of "
                "other kinds are taken by x="
            )
        image = Image.fromarray(array.astype(np.uint8))
    return decoded_image(image, what, size, mode)


def _numbers(rows: list[dict], column: str) -> np.ndarray:
    """[examples, ...], of numbers of one shape."""
    arrays = [to_array(f"x: column {column!r}", row[column]) for row in rows]
    for i, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"x: column {column!r} has shape {arrays[0].shape} in example 0 and "
                f"{array.shape} in example {i}; expected one shape, pad or cut them "
                "(of a tokenizer: padding='max_length', truncation=True)"
            )
    stacked = np.stack(arrays)
    return stacked[:, None] if stacked.ndim == 1 else stacked
