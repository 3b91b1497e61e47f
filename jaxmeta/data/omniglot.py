"""Omniglot, read from its official archives.

Lake, Salakhutdinov, Tenenbaum. Human-level concept learning through probabilistic
program induction. Science 2015. 1,623 characters of 50 alphabets, 20 drawings each.
"""

import hashlib
import io
import json
import zipfile
from importlib import resources
from pathlib import Path, PurePosixPath

import numpy as np

from jaxmeta.checks import check_choice, check_paths, check_seeds
from jaxmeta.data.cache import cached
from jaxmeta.data.dataset import Dataset, of_classes
from jaxmeta.data.images import decoded
from jaxmeta.data.named import published

MOST_BYTES = 1_000_000  # of a drawing; the official ones have some hundreds
ARCHIVES = {
    "background": ("images_background",),
    "evaluation": ("images_evaluation",),
    "small1": ("images_background_small1",),
    "small2": ("images_background_small2",),
}
BOTH = ("images_background", "images_evaluation")
SPLITS = (
    *ARCHIVES,
    "all",
    *("vinyals_train", "vinyals_validation", "vinyals_test"),
    *("random_train", "random_test"),
    *("metadataset_train", "metadataset_validation", "metadataset_test"),
)
SIZE, DRAWINGS, RANDOM_TRAIN = 28, 20, 1200
VERSION = 1  # of the reading below; raise it when the images change


def omniglot(root: str | Path, split: str = "background", *, seed: int = 0) -> Dataset:
    """Omniglot characters, 28 x 28, drawn = 1.

    Args:
        root: folder of the archives `images_background.zip`, `images_evaluation.zip`
            and, for the minimal sets, `images_background_small1.zip` and `..._small2.zip`,
            read as they are.
        split: "background" (30 alphabets, 964 characters), "evaluation" (20, 659),
            "small1" (5, 136), "small2" (5, 156), "all" (1,623);
            "vinyals_train" (1,028), "vinyals_validation" (172), "vinyals_test" (423), the
            class lists of Vinyals et al. 2016; "random_train" (1,200) and "random_test"
            (423), the random split of the MAML paper; "metadataset_train" (883 characters
            of 25 alphabets), "metadataset_validation" (81 of the 5 smallest) and
            "metadataset_test" (659 of 20), the split of Meta-Dataset.
        seed: of the random split.

    Returns: a `Dataset`, images uint8 [28, 28, 1], 20 a character, reduced by Lanczos;
        classes `Alphabet/characterNN`, groups the alphabets, both sorted by name.
    Raises: FileNotFoundError for a missing archive; ValueError for an unknown split, a
        truncated archive, an unsafe path in it or an image that can't be read.
    """
    check_choice("split", split, SPLITS)
    check_seeds(seed=seed)
    check_paths(root=root)
    parts = [_read(Path(root) / f"{a}.zip") for a in ARCHIVES.get(split, BOTH)]
    characters = {name: images for part in parts for name, images in part.items()}
    names = sorted(characters)
    if split.startswith("vinyals_"):
        text = resources.files("jaxmeta.data").joinpath("splits/omniglot_vinyals.json")
        key = {"validation": "val"}.get(split[8:], split[8:])
        names = sorted(json.loads(text.read_text())[key])
    elif split.startswith("random_"):
        order = np.random.default_rng(seed).permutation(len(names))
        chosen = {"train": order[:RANDOM_TRAIN], "test": order[RANDOM_TRAIN:]}
        names = [names[i] for i in sorted(chosen[split[7:]])]
    elif split.startswith("metadataset_"):
        alphabets = published("omniglot_metadataset", split[12:])
        names = [name for name in names if name.split("/")[0] in alphabets]
    return of_classes(
        "omniglot",
        split,
        [characters[name] for name in names],
        names,
        [name.split("/")[0] for name in names],
    )


def _read(archive: Path) -> dict[str, np.ndarray]:
    """Alphabet/characterNN -> [20, 28, 28, 1] uint8."""
    if not archive.is_file():
        raise FileNotFoundError(
            f"omniglot: no archive {archive}; put the official {archive.name} there, or "
            "give the folder that has it as root"
        )
    content = archive.read_bytes()
    try:
        opened = zipfile.ZipFile(io.BytesIO(content))
    except Exception as error:  # what zipfile raises on broken bytes has no end
        raise ValueError(
            f"omniglot: {archive} is truncated or not a zip archive ({error}); fetch it "
            "again"
        ) from error
    drawings = _drawings(archive, opened.namelist())
    version = f"{VERSION} {hashlib.sha256(content).hexdigest()}"
    make = lambda: _decode(archive, opened, drawings)
    images = cached(archive.stem, version, make)
    return dict(zip(sorted(drawings), images, strict=True))


def _drawings(archive: Path, entries: list[str]) -> dict[str, list[str]]:
    """Alphabet/characterNN -> its 20 entries, by drawer."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        path = PurePosixPath(entry.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in entry:
            raise ValueError(
                f"omniglot: {archive} has the unsafe path {entry!r}; this is not the "
                "official archive, fetch it again"
            )
        if path.suffix == ".png" and len(path.parts) == 4:
            found.setdefault("/".join(path.parts[1:3]), []).append(entry)
    wrong = [name for name, images in found.items() if len(images) != DRAWINGS]
    if wrong or not found:
        what = f"{wrong[0]} has {len(found[wrong[0]])}" if wrong else "it has none"
        raise ValueError(
            f"omniglot: {archive}: expected {DRAWINGS} drawings of each character as "
            f"folder/Alphabet/characterNN/*.png, {what}; fetch it again"
        )
    return {name: sorted(images) for name, images in found.items()}


def _decode(archive: Path, opened: zipfile.ZipFile, drawings) -> np.ndarray:
    def one(entry):
        what = f"omniglot: {archive}: {entry}"
        declared = opened.getinfo(entry).file_size
        if declared > MOST_BYTES:
            raise ValueError(
                f"{what} declares {declared:,} bytes, more than {MOST_BYTES:,}; this is "
                "not the official archive, fetch it again"
            )
        try:
            content = opened.read(entry)
        except Exception as error:  # of zipfile and zlib; a password, an unknown method
            raise ValueError(
                f"{what} can't be read ({error}); fetch the archive again"
            ) from error
        # white paper is 0, ink 1
        return 255 - decoded(content, what, SIZE, "L", resample="lanczos")

    stacked = [[one(entry) for entry in drawings[name]] for name in sorted(drawings)]
    return np.asarray(stacked, np.uint8)
