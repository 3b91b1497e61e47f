"""Where metrics go while training: a file of JSON lines, a progress bar."""

import json
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


class Log:
    """Writes one JSON line a chunk and one a validation; shows a progress bar.

    Use it as a context manager. Lines have `step` and the mean of each metric over the
    chunk (`steps_per_second` too); validation lines have `validation_*` and the 95 %
    interval `validation_*_ci95`.

    Args:
        path: the file, appended to; None = no file.
        steps: of the whole run, for the bar; None = no bar.
        start: step to go on from: later lines of an interrupted run are removed.
    """

    def __init__(
        self, path: str | Path | None, steps: int | None = None, start: int = 0
    ):
        if path is not None:
            checks.check_paths(path=path)
        if steps is not None:
            checks.check_sizes(steps=steps)
        checks.check_sizes(0, start=start)
        self._path = path = None if path is None else Path(path)
        self._file: Any = None
        self._bar: Any = _bar(steps, start) if steps else None
        if path is not None and path.exists():
            kept = [line for line in read(path) if line["step"] <= start]
            path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def __enter__(self) -> "Log":
        if self._path is not None:
            self._file = self._path.open("a")
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._file is not None:
            self._file.close()

    def chunk(self, step: int, history: dict[str, np.ndarray], seconds: float) -> None:
        """Metrics [steps of the chunk] each, and the wall time of the chunk."""
        values = {name: float(v.mean()) for name, v in history.items()}
        speed = len(next(iter(history.values()))) / seconds
        self._write({"step": step, **values, "steps_per_second": speed})
        if self._bar is not None:
            told = [n for n in values if n not in QUIET] or [*values]
            shown = "  ".join(f"{name} {values[name]:.3f}" for name in told)
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=step, shown=shown, speed=f"{speed:.1f}")

    def validation(self, step: int, report: Report) -> None:
        """A validation in the middle of training."""
        line: dict[str, float] = {"step": step}
        for name in report.mean:
            line[f"validation_{name}"] = report.mean[name]
            line[f"validation_{name}_ci95"] = report.ci95[name]
        self._write(line)
        if self._bar is not None:
            self._bar.console.print(f"step {step}: validation {report}")

    def _write(self, line: dict[str, float]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


def read(path: str | Path) -> list[dict[str, float]]:
    """The lines of a metrics file; a last line cut off by a crash is left out."""
    lines = []
    for text in Path(path).read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _bar(steps: int, start: int):
    from rich import progress

    bar = progress.Progress(
        progress.TextColumn("step"),
        progress.MofNCompleteColumn(),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[shown]}"),
        progress.TextColumn("{task.fields[speed]} steps/s"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
    )
    bar.add_task("train", total=steps, completed=start, shown="compiling", speed="-")
    return bar
