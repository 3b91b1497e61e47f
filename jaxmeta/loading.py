"""`jm.load`: what the command line left in a folder, back in a notebook."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxmeta.cli.loaded import Loaded


def load(folder: str | Path) -> "Loaded":
    """Give back what `jaxmeta train` left in a folder.

    Nothing in the folder is executed: a config is numbers and words, a checkpoint arrays.

    Args: folder: of the run.
    Returns: a `Loaded` with `learner`, `params`, `state`, `config`, `samplers` and
        `evaluate()`, the run's own test to the same digits.
    Raises: FileNotFoundError if there is no run, ValueError if it can't be read or has no
        checkpoint.
    """
    from jaxmeta.cli import loaded  # it needs what a library does not

    return loaded.load(folder)
