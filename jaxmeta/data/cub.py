"""CUB, 200 species of birds, split for few-shot learning.

Wah, Branson, Welinder, Perona, Belongie. The Caltech-UCSD Birds-200-2011 dataset. 2011.
Chen, Liu, Kira, Wang, Huang. A closer look at few-shot classification. ICLR 2019.
arXiv 1904.04232 (the split: every second class, the others in turns).
"""

from pathlib import Path

from jaxmeta.checks import check_choice, check_paths, check_sizes
from jaxmeta.data.dataset import Dataset
from jaxmeta.data.named import SPLITS, check_counts, class_files, from_files, published


def cub(root: str | Path, split: str = "train", size: int = 84) -> Dataset:
    """CUB-200-2011 in the split of Chen et al.: 100, 50 and 50 species.

    Whole images, not cropped to the bird, are brought to size x size by Pillow's bilinear
    filter, which averages over what a pixel covers; their proportions are not kept. They
    are decoded once and then cached.

    Args:
        root: folder of `CUB_200_2011/` as it is unpacked, or that folder, or its `images/`.
        split: "train" (base), "validation" or "test" (novel).
        size: height and width of the images.

    Returns: a `Dataset`, images uint8 [size, size, 3], 41 to 60 of each class; classes are
        named as their folders, `001.Black_footed_Albatross`.
    Raises: FileNotFoundError for missing folders; ValueError for a class that has not
        all its images and an image that can't be read.
    """
    check_choice("split", split, SPLITS)
    check_paths(root=root)
    check_sizes(size=size)
    expected = published("cub", split)
    places = [Path(root) / part for part in ("CUB_200_2011/images", "images", "")]
    layout = (
        "CUB_200_2011.tgz unpacked there: CUB_200_2011/images/001.Black_footed_.../"
    )
    files = class_files("cub", places, expected, layout)
    check_counts("cub", files, expected, "unpack CUB_200_2011.tgz again")
    return from_files("cub", split, files, size)
