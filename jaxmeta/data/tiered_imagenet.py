"""tieredImageNet, 608 classes of ImageNet split by 34 superclasses.

Ren, Triantafillou, Ravi, Snell, Swersky, Tenenbaum, Larochelle, Zemel. Meta-learning for
semi-supervised few-shot classification. ICLR 2018. arXiv 1803.00676.
"""

from pathlib import Path

from jaxmeta.checks import check_choice, check_paths, check_sizes
from jaxmeta.data.dataset import Dataset
from jaxmeta.data.named import (
    SPLITS,
    check_counts,
    class_files,
    from_files,
    published,
    with_groups,
)


def tiered_imagenet(root: str | Path, split: str = "train", size: int = 84) -> Dataset:
    """tieredImageNet: 351, 97 and 160 classes of 20, 6 and 8 superclasses.

    Images are brought to size x size by Pillow's bilinear filter, which averages over what
    a pixel covers; their proportions are not kept. A class is decoded once and then
    cached. At 84 x 84 the splits take 9.5, 2.6 and 4.4 GB.

    Args:
        root: folder of the train set of ILSVRC 2012, unpacked to a folder for each class,
            `n01530575/*.JPEG`, which may lie within `train/`, `val/`, `test/`.
        split: "train" (448,695 images), "validation" (124,261) or "test" (206,209).
        size: height and width of the images.

    Returns: a `Dataset`, images uint8 [size, size, 3], 732 to 1,300 of each class; classes
        are WordNet ids, groups the ids of their superclasses.
    Raises: FileNotFoundError for missing folders; ValueError for a class that has not
        all its images and an image that can't be read.
    """
    check_choice("split", split, SPLITS)
    check_paths(root=root)
    check_sizes(size=size)
    tree = published("tiered_imagenet", split)
    expected = {c: n for classes in tree.values() for c, n in classes.items()}
    groups = {c: group for group, classes in tree.items() for c in classes}
    places = [Path(root) / part for part in ("", "train", "val", "test")]
    layout = "the train set of ILSVRC 2012, each n01530575.tar unpacked to a folder"
    files = class_files("tiered_imagenet", places, expected, layout)
    why = "unpack the class again from the train set of ILSVRC 2012"
    check_counts("tiered_imagenet", files, expected, why)
    return with_groups(from_files("tiered_imagenet", split, files, size), groups)
