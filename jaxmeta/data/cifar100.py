"""CIFAR-FS and FC100, two splits of CIFAR-100 for few-shot learning.

Bertinetto, Henriques, Torr, Vedaldi. Meta-learning with differentiable closed-form
solvers. ICLR 2019. arXiv 1805.08136 (CIFAR-FS).
Oreshkin, Rodriguez, Lacoste. TADAM: Task dependent adaptive metric for improved few-shot
learning. NeurIPS 2018. arXiv 1805.10123 (FC100).
Krizhevsky. Learning multiple layers of features from tiny images. 2009 (CIFAR-100):
60,000 images of 32 x 32, 600 of each of 100 classes in 20 superclasses.
"""

import hashlib
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from jaxmeta.checks import check_choice, check_paths
from jaxmeta.data.arrays import from_arrays
from jaxmeta.data.dataset import Dataset
from jaxmeta.data.named import SPLITS, published, with_groups

FOLDER, PYTHON_FOLDER = "cifar-100-binary", "cifar-100-python"
ARCHIVE = f"{FOLDER}.tar.gz"
MD5: str | None = "03b5dce01913d631647c71ecec9e9cb8"  # of the archive; None = any
PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
SIDE, PER_CLASS = 32, 600
RECORD = 2 + 3 * SIDE * SIDE  # coarse label, fine label, planes of red, green, blue
BYTES = {"train.bin": 50_000 * RECORD, "test.bin": 10_000 * RECORD}
LINES = {"coarse_label_names.txt": 20, "fine_label_names.txt": 100}
LONGEST_TEXT = 100_000  # bytes; the lists of names are far shorter


def cifar_fs(root: str | Path, split: str = "train") -> Dataset:
    """CIFAR-FS: 64, 16 and 20 classes of CIFAR-100, drawn at random.

    Args:
        root: folder of the archive `cifar-100-binary.tar.gz`, read as it is, or of its
            unpacked folder `cifar-100-binary`.
        split: "train", "validation" or "test"; each has all 600 images of its classes,
            from CIFAR-100's train and test set.

    Returns: a `Dataset`, images uint8 [32, 32, 3], groups the superclasses.
    Raises: FileNotFoundError where there is no archive; ValueError for one that is
        truncated, altered, unsafe or the Python version, a pickle.
    """
    return _few_shot("cifar_fs", root, split)


def fc100(root: str | Path, split: str = "train") -> Dataset:
    """FC100: 60, 20 and 20 classes of CIFAR-100, which share no superclass.

    Args and Returns: as of `cifar_fs`.
    Raises: as `cifar_fs`.
    """
    return _few_shot("fc100", root, split)


def _few_shot(name: str, root: str | Path, split: str) -> Dataset:
    check_choice("split", split, SPLITS)
    check_paths(root=root)
    listed = {
        fine: coarse for coarse, all in published(name, split).items() for fine in all
    }
    cifar = _read(name, Path(root))
    other = [fine for fine in listed if cifar.groups.get(fine) != listed[fine]]
    if other:
        raise ValueError(
            f"{name}: the files have no class {other[0]} of superclass "
            f"{listed[other[0]]}, so they are not CIFAR-100's; fetch {ARCHIVE} again from "
            f"{PAGE}"
        )
    chosen = np.isin(cifar.classes, list(listed))
    kept = [part[chosen[part[:, 1]]] for part in cifar.parts]
    planes = np.concatenate([part[:, 2:] for part in kept])
    images = planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    labels = cifar.classes[np.concatenate([part[:, 1] for part in kept])]
    return with_groups(from_arrays(images, labels, name=name, split=split), listed)


class _Cifar(NamedTuple):
    """parts: train and test, [images, RECORD] uint8. classes: names by fine label.
    groups: the superclass of each class."""

    parts: list[np.ndarray]
    classes: np.ndarray
    groups: dict[str, str]


def _read(name: str, root: Path) -> _Cifar:
    where, contents = _contents(name, root)
    coarse, fine = (contents[file].decode(errors="replace").split() for file in LINES)
    if (len(coarse), len(fine)) != tuple(LINES.values()):
        raise ValueError(
            f"{name}: {where}: expected names of 20 superclasses and 100 classes, got "
            f"{len(coarse)} and {len(fine)}; fetch {ARCHIVE} again from {PAGE}"
        )
    parts = [
        np.frombuffer(contents[file], np.uint8).reshape(-1, RECORD) for file in BYTES
    ]
    pairs, counts = np.unique(
        np.concatenate([part[:, 0] * np.int32(256) + part[:, 1] for part in parts]),
        return_counts=True,
    )
    groups = {}
    for pair, count in zip(pairs, counts, strict=True):
        of_class, of_group = pair % 256, pair // 256
        if of_class >= len(fine) or of_group >= len(coarse) or count != PER_CLASS:
            raise ValueError(
                f"{name}: {where}: superclass {of_group} and class {of_class} have {count} "
                f"images, expected {PER_CLASS} of each of 100 classes (0..99) of 20 "
                f"superclasses (0..19); fetch {ARCHIVE} again from {PAGE}"
            )
        groups[fine[of_class]] = coarse[of_group]
    return _Cifar(parts, np.array(fine), groups)


def _contents(name: str, root: Path) -> tuple[Path, dict[str, bytes]]:
    """Where the files were found, and the bytes of each."""
    if (root / FOLDER).is_dir():
        return root / FOLDER, _from_folder(name, root / FOLDER)
    if (root / "train.bin").is_file():  # the folder itself
        return root, _from_folder(name, root)
    if (root / ARCHIVE).is_file():
        return root / ARCHIVE, _from_archive(name, root / ARCHIVE)
    for pickled in (root / f"{PYTHON_FOLDER}.tar.gz", root / PYTHON_FOLDER):
        if pickled.exists():
            raise ValueError(
                f"{name}: {pickled} is a pickle, which may run any code when it is read, "
                f"and is not read here; put the binary version, {ARCHIVE} of {PAGE}, "
                "beside it"
            )
    raise FileNotFoundError(
        f"{name}: no {ARCHIVE} and no folder {FOLDER} in {root}; put the binary version "
        f"of CIFAR-100 of {PAGE} there, or give the folder that has it as root"
    )


def _from_folder(name: str, folder: Path) -> dict[str, bytes]:
    contents = {}
    for file in (*BYTES, *LINES):
        path = folder / file
        if not path.is_file():
            raise FileNotFoundError(
                f"{name}: no file {path}; unpack {ARCHIVE} again, or remove the folder to "
                "have the archive itself read"
            )
        _check_size(name, folder, file, path.stat().st_size)
        contents[file] = path.read_bytes()
    return contents


def _from_archive(name: str, archive: Path) -> dict[str, bytes]:
    """Its members in memory; nothing is written to disk, and no other member is read."""
    if MD5 is not None:
        with archive.open("rb") as opened:
            quick = lambda: hashlib.md5(usedforsecurity=False)
            found = hashlib.file_digest(opened, quick).hexdigest()
        if found != MD5:
            raise ValueError(
                f"{name}: {archive} is truncated or not the published archive: its MD5 is "
                f"{found}, expected {MD5}; fetch it again from {PAGE}"
            )
    contents = {}
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                _check_member(name, archive, member)
                file = member.name.removeprefix(f"{FOLDER}/")
                reader = opened.extractfile(member)
                if file in (*BYTES, *LINES) and reader is not None:
                    _check_size(name, archive, file, member.size)
                    contents[file] = reader.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{name}: {archive} is truncated or not a tar.gz archive ({error}); fetch it "
            f"again from {PAGE}"
        ) from error
    missing = [file for file in (*BYTES, *LINES) if file not in contents]
    if missing:
        raise ValueError(
            f"{name}: {archive} has no {FOLDER}/{missing[0]}; fetch it again from {PAGE}"
        )
    return contents


def _check_member(name: str, archive: Path, member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name.replace("\\", "/"))
    plain = member.isfile() or member.isdir()
    outside = path.is_absolute() or ".." in path.parts or ":" in member.name
    if outside or not plain or path.parts[:1] != (FOLDER,):
        raise ValueError(
            f"{name}: {archive} has the unsafe member {member.name!r}, expected files in "
            f"{FOLDER}/ only; this is not the official archive, fetch it again from {PAGE}"
        )


def _check_size(name: str, where: Path, file: str, size: int) -> None:
    fits = size == BYTES[file] if file in BYTES else 0 < size <= LONGEST_TEXT
    if not fits:
        wanted = f"{BYTES[file]:,}" if file in BYTES else f"1 to {LONGEST_TEXT:,}"
        raise ValueError(
            f"{name}: {where}: {file} has {size:,} bytes, expected {wanted}; it is "
            f"truncated or another file, fetch {ARCHIVE} again from {PAGE}"
        )
