"""The folder that a run leaves: config, metrics, pictures, checkpoints, reports."""

import contextlib
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import tomli_w

from jaxmeta.cli.environment import environment


class Run:
    """The paths of one run folder."""

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        self.folder = folder
        self.config = folder / "config.toml"
        self.metrics = folder / "metrics.jsonl"
        self.report = folder / "report.json"
        self.summary = folder / "report.md"
        self.curve = folder / "learning_curve.png"
        self.episode = folder / "episode.png"
        self.confusion = folder / "confusion.png"
        self.checkpoints = folder / "checkpoints"
        self.best = folder / "best"
        self.lock = folder / "lock"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Only one process writes a run, even on a disk that several machines share.

        Raises: BlockingIOError if another does.
        """
        try:
            held = filelock.FileLock(self.lock).acquire(timeout=0)
        except filelock.Timeout as error:
            raise BlockingIOError(
                f"another process is training {self.folder}; wait for it, or stop it "
                "(Ctrl-C), then go on"
            ) from error
        with held:
            yield

    @property
    def busy(self) -> bool:
        """Whether a process is writing it."""
        if not self.lock.exists():
            return False
        try:
            with self.writing():
                return False
        except BlockingIOError:
            return True


def written(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    with _beside(path, text) as beside:
        os.replace(beside, path)


@contextlib.contextmanager
def _beside(path: Path, text: str) -> Iterator[Path]:
    """A file with the text, on the disk, in the folder of another; removed at the end."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def create(folder: str | Path, config: dict[str, Any]) -> Run:
    """Make a new run folder and write its config, and what it was made with.

    Raises: FileExistsError if something is there already, PermissionError or another
        OSError if it can't be written; nothing is overwritten.
    """
    folder = Path(folder)
    try:
        if not _begun(folder):
            folder.mkdir(parents=True)
        run = Run(folder)
        content = tomli_w.dumps(_without_none(config | {"made_with": environment()}))
        with _beside(run.config, content) as beside:
            os.link(beside, run.config)  # not if another process was faster
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


def write_config(run: Run, config: dict[str, Any]) -> None:
    """As TOML."""
    written(run.config, tomli_w.dumps(_without_none(config)))


def open_run(folder: str | Path) -> tuple[Run, dict[str, Any]]:
    """An existing run and its config.

    Raises: FileNotFoundError if there is no run, ValueError if its config is broken.
    """
    run = Run(folder)
    if not run.config.is_file():
        raise FileNotFoundError(
            f"no run at {folder}: expected a folder made by jaxmeta train, with a "
            f"{run.config.name} in it"
        )
    return run, read_config(run.config)


def read_config(path: Path) -> dict[str, Any]:
    """The content of a config. Raises: ValueError if it is broken."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no TOML, or no text
        raise ValueError(f"{path} can't be read ({error})") from error


def free_name(folder: str | Path) -> Path:
    """`folder`, or the first of folder-2, folder-3, ... that is not there."""
    name = folder = Path(folder)
    number = 2
    while name.exists() and not _begun(name):
        name, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return name


def to_json(content: Any) -> str:
    """Valid JSON, with null for what is not finite."""
    finite = json.loads(json.dumps(content), parse_constant=lambda _: None)
    return json.dumps(finite, indent=2, allow_nan=False) + "\n"


def _begun(folder: Path) -> bool:
    """Whether it is what a process leaves that is killed before it wrote a config."""
    if not folder.is_dir():
        return False
    return all(path.name.startswith(".config.toml.") for path in folder.iterdir())


def _without_none(content: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: what is absent is None."""
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if value is not None
    }
