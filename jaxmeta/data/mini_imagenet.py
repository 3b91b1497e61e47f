"""miniImageNet, 100 classes of ImageNet with 600 images each.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra. Matching networks for one shot
learning. NeurIPS 2016. arXiv 1606.04080.
Ravi, Larochelle. Optimization as a model for few-shot learning. ICLR 2017 (the split).
"""

import csv
from pathlib import Path

from jaxmeta.checks import check_choice, check_paths, check_sizes
from jaxmeta.data.dataset import Dataset
from jaxmeta.data.named import SPLITS, check_counts, class_files, from_files, published

PER_CLASS = 600
TABLES = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
COLUMNS = ("filename", "label")
LAYOUT = (
    "folders n01532829/ of 600 images (also within train/, val/, test/), or images/ with "
    "train.csv, val.csv and test.csv (filename,label) beside it"
)


def mini_imagenet(root: str | Path, split: str = "train", size: int = 84) -> Dataset:
    """miniImageNet in the split of Ravi and Larochelle: 64, 16 and 20 classes.

    Images are brought to size x size by Pillow's bilinear filter, which averages over what
    a pixel covers; their proportions are not kept. They are decoded once and then cached.

    Args:
        root: folder of `images/`, with `train.csv`, `val.csv`, `test.csv` (columns
            filename,label) beside it; or of a folder for each class, `n01532829/*.jpg`,
            which may lie within `train/`, `val/`, `test/`.
        split: "train", "validation" or "test".
        size: height and width of the images.

    Returns: a `Dataset`, images uint8 [size, size, 3], 600 of each class; classes are
        WordNet ids.
    Raises: FileNotFoundError for a missing folder or table; ValueError for a class that
        has not 600 images and an image that can't be read.
    """
    check_choice("split", split, SPLITS)
    check_paths(root=root)
    check_sizes(size=size)
    root, classes = Path(root), published("mini_imagenet", split)
    if (root / TABLES[split]).is_file():
        files, why = _listed(root, TABLES[split], classes)
    else:
        places = [root, *(root / part for part in ("train", "val", "test"))]
        files = class_files("mini_imagenet", places, classes, LAYOUT)
        why = (
            f"which files of ImageNet they are is said in {TABLES[split]} of the split"
        )
    check_counts("mini_imagenet", files, dict.fromkeys(classes, PER_CLASS), why)
    return from_files("mini_imagenet", split, files, size)


def _listed(root: Path, table: str, classes) -> tuple[dict[str, list[Path]], str]:
    """The files that a table names and `images/` has, and a word on those it has not."""
    folder = root / "images"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"mini_imagenet: no folder {folder} for the images of {table}; expected "
            f"{LAYOUT}"
        )
    with (root / table).open(newline="", encoding="utf-8-sig") as opened:
        rows = csv.DictReader(opened)
        if not set(COLUMNS) <= set(rows.fieldnames or ()):
            raise ValueError(
                f"mini_imagenet: {root / table}: expected the columns filename,label, got "
                f"{','.join(rows.fieldnames or ()) or 'none'}"
            )
        named = [(row["filename"], row["label"]) for row in rows]
    present = {
        file.name for file in folder.iterdir()
    }  # bare names, so no path gets out
    files: dict[str, list[Path]] = {name: [] for name in classes}
    missing = []
    for file, label in named:
        if label not in files:
            raise ValueError(
                f"mini_imagenet: {root / table} names the class {label}, which is not in "
                "this part of the split of Ravi and Larochelle; fetch their tables"
            )
        if file in present:
            files[label].append(folder / file)
        else:
            missing.append(file)
    if not missing:
        return files, f"so it is in {root / table}; fetch the table again"
    return files, (
        f"{len(missing)} of {len(named)} files that {table} names are missing in "
        f"{folder}, the first is {missing[0]}"
    )
