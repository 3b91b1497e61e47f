"""Hand-written digits of 8 x 8 pixels that come with scikit-learn: no download.

1,797 digits by 13 people: the test set of Alpaydin and Kaynak's Optical Recognition of
Handwritten Digits (UCI, 1998), ink averaged over 4 x 4 pixels.
"""

import numpy as np

from jaxmeta.checks import check_choice
from jaxmeta.data.arrays import from_arrays
from jaxmeta.data.dataset import Dataset

SPLITS = {"all": slice(None), "train": slice(1000), "test": slice(1000, None)}


def digits(split: str = "all") -> Dataset:
    """scikit-learn's digits, ink = 1.

    Args: split: "train" (the first 1,000), "test" (the other 797, mostly by other people)
        or "all".
    Returns: a `Dataset`, images float32 [8, 8, 1], classes "0" to "9".
    Raises: ValueError for an unknown split; ModuleNotFoundError where scikit-learn is not
        installed.

    >>> data = digits("train")
    >>> data.x.shape, data.classes[:3]
    ((1000, 8, 8, 1), ('0', '1', '2'))
    """
    check_choice("split", split, SPLITS)
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "digits: expected scikit-learn, which is not installed; "
            "pip install 'jaxmeta[digits]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    x = np.reshape(images, (-1, 8, 8, 1)).astype(np.float32) / 16
    part = SPLITS[split]
    return from_arrays(x[part], labels[part], name="digits", split=split)
