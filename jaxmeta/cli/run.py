"""The folder that a run leaves: config, metrics, pictures, checkpoints, report."""

import json
from pathlib import Path
from typing import Any


class Run:
    """The paths of one run folder."""

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        self.folder = folder
        self.config = folder / "config.json"
        self.metrics = folder / "metrics.jsonl"
        self.report = folder / "report.json"
        self.curve = folder / "learning_curve.png"
        self.episode = folder / "episode.png"
        self.checkpoints = folder / "checkpoints"


def create(folder: str | Path, config: dict[str, Any]) -> Run:
    """Make a new run folder and write its config.

    Raises: FileExistsError if something is there already, PermissionError or another
        OSError if it can't be written; nothing is overwritten.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True)
        run = Run(folder)
        run.config.write_text(json.dumps(config, indent=2) + "\n")
    except FileExistsError as error:
        raise FileExistsError(
            f"run folder {folder} exists; nothing was changed. Choose another with "
            f"--out, or go on with it: jaxmeta train --resume {folder}"
        ) from error
    except OSError as error:
        raise type(error)(
            f"run folder {folder} can't be written ({error.strerror}); choose another "
            "with --out"
        ) from error
    return run


def open_run(folder: str | Path) -> tuple[Run, dict[str, Any]]:
    """An existing run and its config.

    Raises: FileNotFoundError if there is no run, ValueError if its config is broken.
    """
    run = Run(folder)
    if not run.config.is_file():
        raise FileNotFoundError(
            f"no run at {folder}: expected a folder made by jaxmeta train, with a "
            "config.json in it"
        )
    try:
        return run, json.loads(run.config.read_text())
    except ValueError as error:  # no JSON, or no text
        raise ValueError(f"{run.config} can't be read ({error})") from error


def free_name(folder: str | Path) -> Path:
    """`folder`, or the first of folder-2, folder-3, ... that is not there."""
    name = folder = Path(folder)
    number = 2
    while name.exists():
        name, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return name
