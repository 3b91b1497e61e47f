"""The characters that the Omniglot experiments are trained and tested on."""

from pathlib import Path

import jaxmeta as jm
from jaxmeta.data import Dataset


def few_shot(root: Path | None) -> tuple[Dataset, Dataset]:
    """The 1,200 of the Vinyals train and validation lists, and the 423 of the test list.

    Args: root: folder of Omniglot; None = printed letters, the same for both.
    """
    if root is None:
        return letters(), letters()
    parts = [jm.data.omniglot(root, f"vinyals_{s}") for s in ("train", "validation")]
    whole = jm.data.joined(*parts, name="omniglot", split="vinyals_trainval")
    return whole, jm.data.omniglot(root, "vinyals_test")


def alphabets(root: Path | None, split: str) -> tuple[Dataset, Dataset]:
    """One of Lake's splits, and the 20 alphabets of the evaluation set.

    Args: root: as above. split: "small1", "small2" or "background".
    """
    if root is None:
        return letters(), letters()
    return jm.data.omniglot(root, split), jm.data.omniglot(root, "evaluation")


def letters() -> Dataset:
    """Printed letters in at least 20 typefaces: as many as draw a character."""
    return jm.data.glyphs().at_least(20)
