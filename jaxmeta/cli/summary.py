"""The report of a run as a page: what was measured, and what it takes to believe it."""

import sys

import jax

from jaxmeta.cli.recipes import Recipe
from jaxmeta.cli.run import Run, read_config
from jaxmeta.cli.sources.source import Headline, Reports
from jaxmeta.metrics import ByClass
from jaxmeta.training import log as logs

MOST_CLASSES = 20  # that are told


def markdown(
    run: Run,
    recipe: Recipe,
    headline: Headline,
    reports: Reports,
    step: int,
    classes: ByClass | None,
) -> str:
    """The page: the headline beside its baselines, all other metrics, the classes, how it
    was made."""
    options, learned = recipe.options, reports["learned"]
    parts = [
        f"# {recipe.about['learner']} on {options.data}",
        f"{headline.title[0].upper()}{headline.title[1:]} of {learned.num_tasks} unseen "
        f"tasks after {step} meta-steps, mean and 95 % interval over tasks, seed "
        f"{options.seed}:",
        _table(
            ("", headline.title),
            [(who, _said(r, headline.metric, headline)) for who, r in reports.items()],
        ),
        f"{learned.diverged} tasks diverged." if learned.diverged else "",
        "## All metrics",
        _table(("metric", "mean"), [(m, _said(learned, m)) for m in learned.mean]),
        *(() if classes is None else _of_classes(classes)),
        "## How it was made",
        _table(("", ""), [*_made(run)]),
        "![learning curve](learning_curve.png)",
        "![a test task](episode.png)",
        f"Again, to the same digits: `jaxmeta evaluate {run.folder}`. The same run: "
        f"`jaxmeta train --config {run.config}`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _said(report, metric: str, headline: Headline | None = None) -> str:
    scale, unit = (headline.scale, headline.unit) if headline else (1.0, "")
    value, interval = scale * report.mean[metric], scale * report.ci95[metric]
    return f"{value:.4f} ± {interval:.4f}{unit}"


def _made(run: Run):
    """Rows of what it was made with, how long it took, and what memory."""
    yield from read_config(run.config).get("made_with", {}).items()
    yield "tested on", f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    yield "meta-steps took", f"{_seconds(run):.1f} s, without compiling and validating"
    if peak := _memory():
        yield "memory of the process, at most", f"{peak / 1e6:.0f} MB"


def _of_classes(classes: ByClass):
    """A table of the classes, the hardest first."""
    few = classes.hardest(MOST_CLASSES)
    columns = few.queries, few.recall, few.ci95, few.precision, few.f1
    rows = [
        (name, f"{queries:.0f}", *(f"{value:.3f}" for value in values))
        for name, queries, *values in zip(few.names, *columns, strict=True)
    ]
    yield f"## Classes, the {len(rows)} hardest of {len(classes.names)}"
    yield _table(("class", "queries", "recall", "±", "precision", "f1"), rows)
    yield "![what was taken for what](confusion.png)"


def _memory() -> float:
    """The most bytes that this process had; 0 where that is not known."""
    try:
        import resource
    except ModuleNotFoundError:  # of Unix
        return 0
    # Linux counts in 1024 bytes, macOS in bytes
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _seconds(run: Run) -> float:
    """What the chunks took."""
    lines = logs.read(run.metrics) if run.metrics.exists() else []
    seconds, before = 0.0, 0.0
    for line in lines:
        if line.get("steps_per_second"):
            seconds += (line["step"] - before) / line["steps_per_second"]
            before = line["step"]
    return seconds


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
