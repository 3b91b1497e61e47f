"""Runs side by side, on the same tasks (`jaxmeta compare`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmeta.cli.listing import table
from jaxmeta.cli.loaded import Loaded, load
from jaxmeta.training.evaluate import Report, interval, summarize
from jaxmeta.training.pooled import pooled

Row = tuple[str, ...]


def compare(folders: Sequence[Path], num_tasks: int | None, seed: int | None) -> None:
    """Print one table: each run's headline, and its difference to the first, task by task.

    Runs that differ by nothing but their seed get a line for all of them.
    Raises: ValueError for fewer than two runs, or runs that are tested on other tasks.
    """
    if len(folders) < 2:
        raise ValueError(f"runs: expected at least two, got {len(folders)}")
    runs = [load(folder) for folder in folders]
    for run in runs[1:]:
        _check_same_tasks(runs[0], run)
    first = runs[0]
    number = num_tasks or first.recipe.options.test_tasks
    own_seed = first.recipe.options.seed if seed is None else seed
    reports = [run.evaluate(number, own_seed) for run in runs]
    headlines = [first.recipe.source.of(report) for report in reports]
    headline = headlines[0]
    for run, other in zip(runs, headlines, strict=True):
        if other.title != headline.title:
            raise ValueError(
                f"runs: {first.run.folder} is judged by its {headline.title}, "
                f"{run.run.folder} by its {other.title}; expected runs with one metric"
            )
    # one title may have several names: "loss" or "mse"
    reports = [
        summarize({headline.metric: report.per_task[own.metric]})
        for report, own in zip(reports, headlines, strict=True)
    ]
    scale = headline.scale
    said = lambda mean, ci: f"{scale * mean:.4f} ± {scale * ci:.4f}{headline.unit}"
    names = [str(run.run.folder) for run in runs]
    rows = []
    for name, run, report in zip(names, runs, reports, strict=True):
        value = said(report.mean[headline.metric], report.ci95[headline.metric])
        beyond = _difference(report, reports[0], headline.metric)
        known = str(run.recipe.about["learner"]), str(run.recipe.options.seed)
        rows.append(
            (name, *known, value, "" if report is reports[0] else said(*beyond))
        )
    rows += _of_all_seeds(runs, reports, headline.metric, said)
    table(
        f"{headline.title}, mean and 95 % interval, on the same {number} tasks",
        ("run", "learner", "seed", headline.title, f"less that of {names[0]}, paired"),
        rows,
    )


def _difference(report: Report, first: Report, metric: str) -> tuple[float, float]:
    """Mean over tasks, and half its 95 % interval, of what a run has more than the first."""
    each = report.per_task[metric] - first.per_task[metric]
    return float(each.mean()), interval(each)


def _of_all_seeds(runs: list[Loaded], reports: list[Report], metric: str, said):
    """A row for runs that differ by nothing but their seed."""
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        about = {k: v for k, v in run.recipe.about.items() if k != "seed"}
        about |= {
            n: getattr(run.recipe.options, n) for n in ("steps", "tested", "root")
        }
        about["patience"] = run.recipe.options.patience
        groups.setdefault(repr(sorted(about.items(), key=str)), []).append(i)
    for same in groups.values():
        if len({runs[i].recipe.options.seed for i in same}) == len(same) > 1:
            report = pooled([reports[i] for i in same], same_tasks=True)
            seeds = ", ".join(str(runs[i].recipe.options.seed) for i in same)
            learner = str(runs[same[0]].recipe.about["learner"])
            value = said(report.mean[metric], report.ci95[metric])
            yield f"all {len(same)} of them", learner, seeds, value, ""


def _check_same_tasks(first: Loaded, other: Loaded) -> None:
    """Raise ValueError unless two runs are tested on one distribution over tasks."""
    name = lambda run: run.recipe.options.data
    if name(first) != name(other):
        raise ValueError(
            f"runs: {first.run.folder} is of {name(first)}, {other.run.folder} of "
            f"{name(other)}; expected runs on the same data"
        )
    a, b = (jax.tree.flatten(run.samplers["test"]) for run in (first, other))
    # what is acted in are functions, made anew
    drawn = callable(getattr(first.samplers["test"], "sample", None))
    alike = a[1] == b[1] or not drawn
    alike = alike and len(a[0]) == len(b[0]) and all(map(_equal, a[0], b[0]))
    if not alike or (not drawn and _other_option(first, other, seed=False)):
        sizes = _other_option(first, other)
        raise ValueError(
            f"runs: {first.run.folder} and {other.run.folder} are tested on other tasks "
            f"({sizes}); expected the same data, sizes and split"
        )


def _other_option(first: Loaded, other: Loaded, seed: bool = True) -> str:
    """The first option of the data that differs, or ""."""
    a, b = first.recipe.about, other.recipe.about
    names = (
        "root",
        "train_split",
        "ways",
        "shots",
        "queries",
        *first.recipe.source.uses,
    )
    training = "tasks_at_once", "epochs", "minibatches", "train_ways"
    names = [n for n in names if n not in training] + ["seed"] * seed
    differ = [n for n in names if a.get(n) != b.get(n)]
    return ", ".join(f"{n} {a.get(n)} and {b.get(n)}" for n in differ[:1])


def _equal(a: Any, b: Any) -> bool:
    return np.shape(a) == np.shape(b) and bool(np.all(np.asarray(a) == np.asarray(b)))
