"""The characters that the Omniglot experiments are trained and tested on."""

from dataclasses import replace
from pathlib import Path

import numpy as np

import jaxmeta as jm
from jaxmeta.data import Dataset


def few_shot(root: Path | None) -> tuple[Dataset, Dataset]:
    """The 1,200 of the Vinyals train and validation lists, and the 423 of the test list.

    Args: root: folder of Omniglot; None = printed letters, the same for both.
    """
    if root is None:
        return letters(), letters()
    parts = [jm.data.omniglot(root, f"vinyals_{s}") for s in ("train", "validation")]
    return _joined(*parts), jm.data.omniglot(root, "vinyals_test")


def alphabets(root: Path | None, split: str) -> tuple[Dataset, Dataset]:
    """One of Lake's splits, and the 20 alphabets of the evaluation set.

    Args: root: as above. split: "small1", "small2" or "background".
    """
    if root is None:
        return letters(), letters()
    return jm.data.omniglot(root, split), jm.data.omniglot(root, "evaluation")


def letters() -> Dataset:
    """Printed letters in at least 20 typefaces: as many as draw a character."""
    data = jm.data.glyphs()
    kept = np.flatnonzero(data.counts >= 20)
    return replace(
        data,
        images=data.images[kept],
        counts=data.counts[kept],
        classes=tuple(data.classes[i] for i in kept),
        groups=tuple(data.groups[i] for i in kept),
    )


def _joined(train: Dataset, validation: Dataset) -> Dataset:
    return replace(
        train,
        split="vinyals_trainval",
        images=np.concatenate([train.images, validation.images]),
        counts=np.concatenate([train.counts, validation.counts]),
        classes=train.classes + validation.classes,
        groups=train.groups + validation.groups,
    )
