"""What the named image sets share: published splits, groups, folders of classes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta.data.arrays import from_arrays
from jaxmeta.data.cache import cached
from jaxmeta.data.dataset import Dataset
from jaxmeta.data.images import SUFFIXES, decoded_files

SPLITS = ("train", "validation", "test")
VERSION = 1  # of what is cached below; raise it when the images change


def published(name: str, split: str) -> Any:
    """The classes of a split as its authors list them, from the package's own files."""
    text = resources.files("jaxmeta.data").joinpath(f"splits/{name}.json").read_text()
    return json.loads(text)[split]


def with_groups(data: Dataset, of: Mapping[str, str]) -> Dataset:
    """The data set with a group for each of its classes."""
    return replace(data, groups=tuple(of[name] for name in data.classes))


def class_files(
    name: str, places: Sequence[Path], classes: Iterable[str], layout: str
) -> dict[str, list[Path]]:
    """The image files of each class, sorted by name.

    Args: places, folders that may have a folder for each class; layout, what is expected.
    Raises: FileNotFoundError that names and counts the classes without a folder.
    """
    classes = list(classes)
    found = {
        c: next((p / c for p in places if (p / c).is_dir()), None) for c in classes
    }
    missing = [c for c, folder in found.items() if folder is None]
    if missing:
        raise FileNotFoundError(
            f"{name}: {len(missing)} of {len(classes)} class folders are missing, the "
            f"first is {missing[0]}, in {places[0]}; expected {layout}"
        )
    return {c: _images_in(folder) for c, folder in found.items() if folder}


def _images_in(folder: Path) -> list[Path]:
    named = (f for f in folder.iterdir() if not f.name.startswith("."))
    return sorted(f for f in named if f.suffix.lower() in SUFFIXES)


def check_counts(
    name: str,
    files: Mapping[str, Sequence[Path]],
    expected: Mapping[str, int],
    why: str,
) -> None:
    """Raise ValueError unless each class has as many images as its authors counted.

    Args: why, what could be the matter and what to do.
    """
    wrong = [c for c in expected if len(files.get(c, ())) != expected[c]]
    if wrong:
        first, more = wrong[0], f", and {len(wrong) - 1} more classes differ"
        raise ValueError(
            f"{name}: class {first} has {len(files.get(first, ()))} images, expected "
            f"{expected[first]}{more if len(wrong) > 1 else ''}; {why}"
        )


def from_files(
    name: str, split: str, files: Mapping[str, Sequence[Path]], size: int
) -> Dataset:
    """A data set of image files by class, size x size, RGB, by Pillow's bilinear filter.

    Each class is decoded once and then cached, for as long as its files stay the same.
    """
    counts = [len(paths) for paths in files.values()]
    images = np.empty((sum(counts), size, size, 3), np.uint8)
    ends = np.cumsum(counts)
    for (label, paths), count, end in zip(files.items(), counts, ends, strict=True):
        images[end - count : end] = _class_images(f"{name}-{label}", paths, size)
    return from_arrays(images, np.repeat(list(files), counts), name=name, split=split)


def _class_images(name: str, paths: Sequence[Path], size: int) -> np.ndarray:
    """[files, size, size, 3] uint8."""
    import PIL

    stats = [(path.name, path.stat()) for path in paths]
    seen = [f"{file} {s.st_size} {s.st_mtime_ns}" for file, s in stats]
    version = "\n".join([f"{VERSION} {size} {PIL.__version__}", *seen])
    said = lambda path: f"{name.partition('-')[0]}: {path}"
    return cached(name, version, lambda: decoded_files(paths, said, size))
