"""Where metrics go while training: a file of JSON lines, a progress bar or lines."""

import json
import math
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxmeta import checks
from jaxmeta.training.evaluate import Report


class Logs(Protocol):
    """Where `fit` reports to."""

    def chunk(
        self, step: int, history: dict[str, np.ndarray], seconds: float, /
    ) -> None:
        """Metrics [steps of the chunk] each, and the wall time of the chunk."""
        ...

    def validation(self, step: int, report: Report, /) -> None:
        """A validation in the middle of training."""
        ...


# not on the bar, which has one line: `fit` warns of two, and three are in the file
QUIET = ("diverged", "skipped", "objective", "divergence", "entropy")
BETWEEN = 5.0  # seconds between two lines where there is no terminal


class Log:
    """Writes one JSON line a chunk and one a validation; shows how far it is.

    Use it as a context manager. Lines have `step` and the mean of each metric over the
    chunk (`steps_per_second` too); validation lines have `validation_*` and the 95 %
    interval `validation_*_ci95`. What is not finite is null. The file is only appended to.

    Args:
        path: the file; None = no file.
        steps: of the whole run, for a progress bar on a terminal or in a notebook; None =
            none.
        start: step to go on from: later lines of an interrupted run count no more.
        lines: where there is neither terminal nor notebook, print a line every few
            seconds; False = nothing.
        tensorboard: a folder for TensorBoard to read, of the same numbers; None = none.
            Needs tensorboardX (`pip install "jaxmeta[tensorboard]"`).
    """

    def __init__(
        self,
        path: str | Path | None,
        steps: int | None = None,
        start: int = 0,
        *,
        lines: bool = False,
        tensorboard: str | Path | None = None,
    ):
        if path is not None:
            checks.check_paths(path=path)
        if steps is not None:
            checks.check_sizes(steps=steps)
        checks.check_sizes(0, start=start)
        checks.check_flags(lines=lines)
        self._path = None if path is None else Path(path)
        self._file: Any = None
        self._board: Any = None if tensorboard is None else _board(tensorboard)
        self._start = start
        self._shown: Any = _shown(steps, start, lines) if steps else None

    def __enter__(self) -> "Log":
        if self._path is not None:
            cut = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
            there = self._path.exists() and self._path.stat().st_size > 0
            self._file = self._path.open("a", encoding="utf-8")
            if cut and there:  # a crash in the middle of a line costs that line
                self._file.write("\n")
            if there and any(line["step"] > self._start for line in read(self._path)):
                self._write({"resumed": self._start})
        if self._shown is not None:
            self._shown.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._shown is not None:
            self._shown.stop()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def chunk(self, step: int, history: dict[str, np.ndarray], seconds: float) -> None:
        """Metrics [steps of the chunk] each, and the wall time of the chunk."""
        values = {name: float(v.mean()) for name, v in history.items()}
        speed = len(next(iter(history.values()))) / seconds
        self._write({"step": step, **values, "steps_per_second": speed})
        if self._shown is not None:
            told = [n for n in values if n not in QUIET] or [*values]
            shown = "  ".join(f"{name} {values[name]:.3f}" for name in told)
            self._shown.update(step, shown, f"{speed:.1f}")

    def validation(self, step: int, report: Report) -> None:
        """A validation in the middle of training."""
        line: dict[str, float] = {"step": step}
        for name in report.mean:
            line[f"validation_{name}"] = report.mean[name]
            line[f"validation_{name}_ci95"] = report.ci95[name]
        self._write(line)
        if self._shown is not None:
            self._shown.say(f"step {step}: validation {report}")

    def _write(self, line: dict[str, float]) -> None:
        if self._file is not None:
            finite = {k: v if math.isfinite(v) else None for k, v in line.items()}
            self._file.write(json.dumps(finite, allow_nan=False) + "\n")
            self._file.flush()
        if self._board is not None and "step" in line:
            for name, value in line.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(line["step"]))


def _text(path: Path) -> str:
    """What a file has; nothing if there is none."""
    return path.read_text("utf-8", errors="replace") if path.exists() else ""


def read(path: str | Path) -> list[dict[str, float]]:
    """The lines of a metrics file that count, with NaN for null.

    A broken line is left out, and so are those of steps that an interrupted run did and
    did again when it was resumed.
    """
    lines: list[dict[str, float]] = []
    for text in _text(Path(path)).splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):  # no JSON, a number or a nest too long
            continue
        if not isinstance(line, dict):
            continue
        if isinstance(line.get("resumed"), int):
            lines = [before for before in lines if before["step"] <= line["resumed"]]
        elif isinstance(line.get("step"), int):
            lines.append({k: math.nan if v is None else v for k, v in line.items()})
    return lines


def _board(folder: str | Path):
    """What writes for TensorBoard. Raises: ModuleNotFoundError that says what to install."""
    checks.check_paths(tensorboard=folder)
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'tensorboard: needs tensorboardX; pip install "jaxmeta[tensorboard]"'
        ) from error
    return SummaryWriter(str(folder))


def _shown(steps: int, start: int, lines: bool):
    """A bar where it is seen; else lines, if they are wanted."""
    from rich.console import Console

    console = Console()
    if console.is_terminal or console.is_jupyter:
        return _Bar(console, steps, start)
    return _Lines(steps, start) if lines else None


class _Bar:
    """Of rich, one line."""

    def __init__(self, console, steps: int, start: int):
        from rich import progress

        self._bar = bar = progress.Progress(
            progress.TextColumn("step"),
            progress.MofNCompleteColumn(),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[shown]}"),
            progress.TextColumn("{task.fields[speed]} steps/s"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("left"),
            console=console,
        )
        self._task = bar.add_task(
            "train", total=steps, completed=start, shown="compiling", speed="-"
        )
        self.start, self.stop = bar.start, bar.stop

    def update(self, step: int, shown: str, speed: str) -> None:
        """After a chunk."""
        self._bar.update(self._task, completed=step, shown=shown, speed=speed)

    def say(self, text: str) -> None:
        """Above the bar."""
        self._bar.console.print(text)


class _Lines:
    """For a file or a pipe: a line every few seconds, and the last."""

    def __init__(self, steps: int, start: int):
        del start
        self._steps, self._last = steps, -math.inf

    def start(self) -> None:
        """It begins."""
        print("compiling", flush=True)

    def stop(self) -> None:
        """It ends."""

    def update(self, step: int, shown: str, speed: str) -> None:
        """After a chunk."""
        now = time.monotonic()
        if now - self._last < BETWEEN and step < self._steps:
            return
        left = (self._steps - step) / float(speed) if float(speed) else math.inf
        text = f"step {step}/{self._steps}  {shown}  {speed} steps/s"
        print(f"{text}  {left:.0f} s left", flush=True)
        self._last = now

    def say(self, text: str) -> None:
        """Between them."""
        print(text, flush=True)
