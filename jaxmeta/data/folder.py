"""Images in folders, a class a folder, or listed in a table."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from jaxmeta.checks import check_choice, check_names, check_paths
from jaxmeta.data.arrays import from_arrays
from jaxmeta.data.columns import Columns, check_column, read_csv
from jaxmeta.data.dataset import Dataset
from jaxmeta.data.images import MODES, SUFFIXES, check_size, decoded_files

SPLITS = ("train", "training", "validation", "valid", "val", "test", "testing")


def from_folder(
    path: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    mode: str = "RGB",
    table: str | Path | None = None,
    name: str | None = None,
    split: str = "",
) -> Dataset:
    """A data set of image files, the class of each said by its folder or by a table.

    Without a table each folder that holds images is a class, called by its path within
    `path` ("cat", "felines/cat"), and the folder above it is its group ("", "felines").
    Hidden files and folders, and files that are no images by their names, are passed over.

    Args:
        path: of the folder.
        size: (height, width) to bring images to, or one number for both, whatever their
            proportions; None = as they are, all of one size.
        mode: "RGB", or "L" for greys.
        table: a CSV file with the columns path,label and perhaps split; paths are within
            `path`. Only the files that it lists are read, of them those of `split`.
        name: what messages and reports call it; None = the folder's name.
        split: "" = everything, unless a class is in two folders called like splits. With
            a table, the part of it to read. Without one, if `path` has a folder of this
            name (`train/cat/1.png`), only that is read; if it has none, but one called
            like another split (test), that is an error; and else it is what messages call
            the whole.

    Returns: a `Dataset`, x uint8 [examples, height, width, 3 or 1], origin the files
        within `path`.
    Raises: FileNotFoundError for a missing folder, table or listed file; ValueError for a
        folder without images, an image that can't be read, images that differ in size, a
        listed path outside the folder or listed twice, a class in two splits.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for label in ("cat", "dog"):
    ...         Path(folder, label).mkdir()
    ...         Image.new("L", (8, 6)).save(Path(folder, label, "1.png"))
    ...     data = from_folder(folder, mode="L")
    >>> data.classes, data.x.shape, data.origin.tolist()
    (('cat', 'dog'), (2, 6, 8, 1), ['cat/1.png', 'dog/1.png'])
    """
    check_choice("mode", mode, MODES)
    check_size(size)
    check_names(**({} if name is None else {"name": name}), split=split)
    check_paths(path=path, **({} if table is None else {"table": table}))
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(
            f"from_folder: there is no folder {root}; expected one with a folder of images "
            "for each class"
        )
    name = root.resolve().name if name is None else name
    if table is None:
        inside = root / split if _has_split(root, split) else root
        labels = _by_folder(inside)
        _check_one_split(inside, labels)
    else:
        inside, labels = root, _by_table(root, Path(table), split)
    return _read(root, inside, labels, size, mode, name, split)


def read_images(
    path: str | Path, *, size: int | tuple[int, int] | None = None, mode: str = "RGB"
) -> tuple[list[str], np.ndarray]:
    """Images without labels: the files in a folder and the folders within it.

    Args: path: of the folder; size, mode: as in `from_folder`.
    Returns: (their paths within the folder, sorted; uint8 [files, height, width, 3 or 1]).
    Raises: FileNotFoundError for a missing folder; ValueError for a folder without images,
        an image that can't be read, images that differ in size.
    """
    check_choice("mode", mode, MODES)
    check_size(size)
    check_paths(path=path)
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(
            f"read_images: there is no folder {root}; expected one with images"
        )
    walked = list(_walk(root, {}))
    files = sorted(f for _, found, _ in walked for f in found if _is_image(f))
    if not files:
        found = _counted([f for _, found, _ in walked for f in found])
        raise ValueError(
            f"read_images: {root} has no image ({found}); expected files with the suffix "
            f"{', '.join(SUFFIXES[:3])} or another of images"
        )
    names = [file.relative_to(root).as_posix() for file in files]
    said = lambda file: f"read_images: {file}"
    return names, decoded_files(files, said, size, mode)


def _read(root, inside, labels: dict[str, str], size, mode, name, split) -> Dataset:
    """The data set of files (their paths inside a folder) and their labels."""
    files = sorted(labels)
    said = lambda file: f"from_folder: {file}"
    images = decoded_files([inside / f for f in files], said, size, mode)
    names = [labels[f] for f in files]
    groups = [label.rpartition("/")[0] for label in names]
    made = from_arrays(images, np.array(names), groups=groups, name=name, split=split)
    origin = [(inside / f).relative_to(root).as_posix() for f in files]
    return replace(made, origin=np.array(origin)[made.origin])


def _has_split(root: Path, split: str) -> bool:
    """Whether the root has a folder for the split."""
    if not split:
        return False
    if split not in ("", ".", "..") and not set("/\\") & set(split):
        found = sorted(p.name for p in _listed(root) if p.is_dir())
        if split in found:
            return True
        others = [s for s in found if s.lower() in SPLITS]
        if others:
            raise ValueError(
                f"split: {root} has folders of splits, but none called {split!r}; expected "
                f"one of {', '.join(others)}"
            )
    return False


def _listed(folder: Path) -> list[Path]:
    """What a folder has that is not hidden."""
    try:
        return [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    except OSError as error:
        raise ValueError(
            f"from_folder: the folder {folder} can't be read ({error.strerror}); expected "
            "one that this user may read"
        ) from error


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _by_folder(root: Path) -> dict[str, str]:
    """The class of each image, by its path inside the root."""
    labels: dict[str, str] = {}
    others: list[Path] = []
    for folder, files, deeper in _walk(root, {}):
        images = [file for file in files if _is_image(file)]
        others += [file for file in files if not _is_image(file)]
        label = folder.relative_to(root).as_posix()
        if images and folder == root:
            raise ValueError(
                f"from_folder: {len(images)} images lie in {root} itself, in no folder of a "
                f"class, the first is {images[0].name}; move them, or list them in table="
            )
        if not images and not deeper and folder != root:
            raise ValueError(
                f"from_folder: the folder {folder} has no image ({_counted(files)}); "
                "expected some in each class, fill it or remove it"
            )
        labels |= {file.relative_to(root).as_posix(): label for file in images}
    if not labels:
        raise ValueError(
            f"from_folder: {root} has no class ({_counted(others)}); expected a folder for "
            f"each with images, {', '.join(SUFFIXES[:3])} or another of their suffixes"
        )
    return labels


def _check_one_split(root: Path, labels: dict[str, str]) -> None:
    """Raise ValueError for a class in two folders that are called like splits."""
    first: dict[str, str] = {}
    for label in dict.fromkeys(labels.values()):
        split, _, name = label.partition("/")
        if not name or split.lower() not in SPLITS:
            continue
        if first.setdefault(name, split) != split:
            raise ValueError(
                f"split: the class {name!r} is in {root / first[name]} and in "
                f"{root / split}, which would be two classes; expected split={split!r} or "
                f"split={first[name]!r}, to read one of them"
            )


def _counted(others: list[Path]) -> str:
    if not others:
        return "no file at all"
    return f"{len(others)} other files, e.g. {others[0].name}"


Folder = tuple[Path, list[Path], list[Path]]  # it, its files, the folders in it


def _walk(folder: Path, seen: dict[Path, Path]) -> Iterator[Folder]:
    """Folders from the top down, links followed.

    Raises: ValueError for a folder that is there twice, by a link: two classes of the same
    images, or a circle.
    """
    real = Path(os.path.realpath(folder))
    if real in seen:
        raise ValueError(
            f"from_folder: the folder {folder} is a link to {seen[real]}, which is read "
            "too; remove one of them"
        )
    seen[real] = folder
    found = _listed(folder)
    deeper = [path for path in found if path.is_dir()]
    yield folder, [path for path in found if not path.is_dir()], deeper
    for inner in deeper:
        yield from _walk(inner, seen)


def _by_table(root: Path, file: Path, split: str) -> dict[str, str]:
    """The class of each image of the split, by its path inside the root."""
    table = read_csv(file, "from_folder")
    parted = "split" in table.values
    for column in ("path", "label", *(["split"] if parted or split else [])):
        check_column(table, "table", column)
    paths, names = list(table.values["path"]), list(table.values["label"])
    splits = list(table.values["split"]) if parted else [split] * len(paths)
    _check_leakage(table, names, splits)
    if split and split not in splits:
        raise ValueError(
            f"split: {table.what} has no row of {split!r}; expected one of "
            f"{', '.join(sorted(set(splits)))}"
        )
    labels: dict[str, str] = {}
    for row, path in enumerate(paths):
        inside = _inside(table, row, path)
        if inside in labels:
            raise ValueError(
                f"{table.what}, {table.place(row)}: {path} is listed twice; expected each "
                "file once, leave one out"
            )
        labels[inside] = names[row]
    wanted = [f for f, own in zip(labels, splits, strict=True) if split in ("", own)]
    _check_there(table, root, wanted)
    return {f: labels[f] for f in wanted}


def _inside(table: Columns, row: int, path: str) -> str:
    """A listed path, if it stays within the folder."""
    plain = PurePosixPath(path.replace("\\", "/"))
    outside = plain.is_absolute() or ".." in plain.parts or PureWindowsPath(path).drive
    if outside or not plain.parts:
        raise ValueError(
            f"{table.what}, {table.place(row)}: the path {path!r} leads out of the folder; "
            "expected one within it, without .. and not absolute"
        )
    return plain.as_posix()


def _check_leakage(table: Columns, names, splits) -> None:
    """Raise ValueError for a class in two splits."""
    first: dict[str, str] = {}
    for row, (name, split) in enumerate(zip(names, splits, strict=True)):
        if first.setdefault(name, split) != split:
            raise ValueError(
                f"{table.what}, {table.place(row)}: class {name!r} is in the splits "
                f"{first[name]} and {split}, so a test would know it from training "
                "(leakage); expected each class in one"
            )


def _check_there(table: Columns, root: Path, files: list[str]) -> None:
    missing = [file for file in files if not (root / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{table.what}: {len(missing)} of {len(files)} listed files are missing in "
            f"{root}, the first is {missing[0]}; add them, or leave their rows out"
        )
