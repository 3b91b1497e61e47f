"""Pictures of a run. Drawn without pyplot, so nothing global is touched."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxmeta.training.evaluate import Report
from jaxmeta.types import Batch, Task


def learning_curve(
    lines: list[dict[str, float]],
    path: Path,
    *,
    metric: str,
    references: dict[str, float] | None = None,
    tested: tuple[int, float, float] | None = None,
) -> None:
    """Draw training and validation values of a metric against meta-steps.

    Args:
        lines: of `metrics.jsonl`. path: of the picture. metric: e.g. "accuracy".
        references: values by name, drawn as dashed lines. tested: step, mean and half its
            95 % interval of the final test.
    """
    figure = _figure(6.4, 4.0)
    axes = figure.subplots()
    train = [(line["step"], line[metric]) for line in lines if metric in line]
    if train:
        axes.plot(*zip(*train, strict=True), label="training", linewidth=1, marker=".")
    name = f"validation_{metric}"
    seen = [line for line in lines if name in line]
    if seen:
        axes.errorbar(
            [line["step"] for line in seen],
            [line[name] for line in seen],
            yerr=[line[f"{name}_ci95"] for line in seen],
            marker="o",
            capsize=3,
            label="validation, 95 % interval",
        )
    if tested is not None:
        step, value, half = tested
        label = "test, 95 % interval"
        axes.errorbar([step], [value], yerr=[half], marker="D", capsize=4, label=label)
    for i, (name, value) in enumerate((references or {}).items()):
        color = f"C{i + 3}" if i else "black"
        axes.axhline(value, color=color, linestyle="--", label=name)
    axes.set_xlabel("meta-steps")
    axes.set_ylabel(metric.replace("_", " "))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def along(
    name: str,
    metric: str,
    values: Sequence[Any],
    means: ArrayLike,
    ci95: ArrayLike,
    path: Path,
) -> None:
    """Draw a test along one number, with 95 % intervals.

    Args: name: of the number; metric: as people say it; values: [n]; means, ci95: [n];
        path: of the picture.
    """
    figure = _figure(6.4, 4.0)
    axes = figure.subplots()
    numbers = all(isinstance(value, (int, float)) for value in values)
    places = values if numbers else range(len(values))
    axes.errorbar(places, means, yerr=ci95, marker="o", capsize=3)
    axes.set_xticks(places, labels=[str(value) for value in values])
    axes.set_xlabel(name)
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def returns(reports: dict[str, Report], path: Path) -> None:
    """Draw what agents earn in each episode, or after each update.

    Args:
        reports: of `jm.evaluate_returns`, by name; the first says what there is to draw:
            one with `episode_1`, ... or `return_0`, ... is a line with its 95 % intervals,
            one with neither a bar, as all others then.
        path: of the picture.
    """
    figure = _figure(6.4, 4.0)
    axes = figure.subplots()
    points, label = _points(next(iter(reports.values())))
    for i, (name, report) in enumerate(reports.items()):
        known = [p for p in points if p in report.mean]
        mean, error = (
            [table[p] for p in known] for table in (report.mean, report.ci95)
        )
        if len(points) == 1:
            axes.barh(name, mean, xerr=error, color=f"C{i}", capsize=3)
        elif len(known) < len(points):
            axes.axhline(report.mean["return"], color=f"C{i}", ls="--", label=name)
        else:
            axes.errorbar(range(len(points)), mean, error, color=f"C{i}", label=name)
    if len(points) == 1:
        axes.invert_yaxis()
        axes.set_xlabel("return of an episode")
    else:
        first = 1 if "episode" in label else 0
        ticks = [str(first + i) for i in range(len(points))]
        axes.set_xticks(range(len(points)), labels=ticks)
        axes.set_xlabel(label)
        axes.set_ylabel("return of an episode")
        axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _points(report: Report) -> tuple[list[str], str]:
    """What to draw one after the other, and how that is called."""
    episodes = [name for name in report.mean if name.startswith("episode_")]
    if episodes:
        return episodes, "episode of a task"
    updates = [name for name in report.mean if name.startswith("return_")]
    return [*updates, "return"], "updates"


def episode(
    task: Task, outputs: jax.Array, path: Path, names: tuple[str, ...] = ()
) -> None:
    """Draw one image episode: support by class, queries with predictions.

    Args: task, one task with images [examples, h, w, c]; outputs, logits
        [queries, ways]; path of the picture; names of the classes, () = their numbers. A
        wrong prediction has a red frame, and says which class was predicted.
    """
    ways = outputs.shape[-1]
    called = _called(names, ways)
    predicted = np.argmax(np.asarray(outputs), axis=-1)
    support, query = (_by_class(b.y, ways) for b in task)
    columns = max(map(len, support)) + max(map(len, query))
    figure = _figure(0.9 * columns + 0.6, 1.05 * ways + 0.5)
    grid = figure.subplots(ways, columns, squeeze=False)
    for cell in grid.flat:
        cell.axis("off")
    first = max(map(len, support))
    grid[0, 0].set_title("support", loc="left")
    grid[0, first].set_title("query: predicted class", loc="left")
    for k in range(ways):
        for column, i in enumerate(support[k]):
            _image(grid[k, column], task.support.x[i], called[k], "black")
        for column, i in enumerate(query[k], start=first):
            color = "green" if predicted[i] == k else "red"
            _image(grid[k, column], task.query.x[i], called[predicted[i]], color)
    figure.savefig(path, dpi=120)


def confusion(matrix: np.ndarray, names: tuple[str, ...], path: Path) -> None:
    """Draw which class was taken for which.

    Args: matrix: [classes, classes] queries of a class (row) taken for another (column);
        names: of the classes; path: of the picture.
    """
    matrix = np.asarray(matrix, float)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.22 * len(names)
    figure = _figure(side + 0.6, side)
    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places, called = range(len(names)), _called(names, len(names))
    axes.set_xticks(places, labels=called, rotation=90, fontsize=6)
    axes.set_yticks(places, labels=called, fontsize=6)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    figure.colorbar(shown, ax=axes, shrink=0.7, label="share of its queries")
    figure.savefig(path, dpi=120)


def plane(
    task: Task, outputs: jax.Array, path: Path, names: tuple[str, ...] = ()
) -> None:
    """Draw one episode of rows of numbers, in the plane where the task's inputs vary most.

    Args: task, one task with inputs [examples, features]; outputs, logits
        [queries, ways]; path of the picture; names of the classes. Dots are the support
        set by class, crosses queries by the class predicted, with a red ring where it is
        wrong.
    """
    called = _called(names, outputs.shape[-1])
    points, middle = _plane_of(np.asarray(task.support.x), np.asarray(task.query.x))
    predicted = np.argmax(np.asarray(outputs), axis=-1)
    figure = _figure(6.4, 4.8)
    axes = figure.subplots()
    labels = np.asarray(task.support.y)
    for k in range(outputs.shape[-1]):
        color = f"C{k}"
        dots, crosses = points[:middle][labels == k], points[middle:][predicted == k]
        axes.scatter(*dots.T, color=color, label=called[k])
        axes.scatter(*crosses.T, color=color, marker="x")
    wrong = points[middle:][predicted != np.asarray(task.query.y)]
    ring = {"s": 120, "facecolors": "none", "edgecolors": "red"}
    axes.scatter(*wrong.T, label="wrong", **ring)
    axes.set_title("dots: support, crosses: query as predicted", loc="left")
    axes.legend()
    figure.savefig(path, dpi=120)


def _plane_of(support: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, int]:
    """All inputs in their first two principal components, and where the queries begin."""
    both = np.concatenate([support, query]).reshape(len(support) + len(query), -1)
    both = both - both.mean(0)
    axes = np.linalg.svd(both, full_matrices=False)[2][:2]
    points = both @ axes.T
    lacking = 2 - points.shape[1]
    return np.pad(points, ((0, 0), (0, lacking))), len(support)


def curve(
    task: Task, x: ArrayLike, lines: dict, path: Path, truth: Batch | None = None
) -> None:
    """Draw one regression task with scalar inputs: its points and predicted curves.

    Args:
        task: one task, x and y [examples, 1]; padding is left out.
        x: [n, 1], where the curves were predicted, increasing.
        lines: name -> mean [n, 1], or (mean, standard deviation) [n, 1] each.
        path: of the picture. truth: points [n, 1] of the true curve, in any order.
    """
    figure = _figure(6.4, 4.0)
    axes = figure.subplots()
    x = np.asarray(x)
    if truth is not None:
        order = np.argsort(np.asarray(truth.x)[:, 0])
        points = (np.asarray(a)[order, 0] for a in truth[:2])
        axes.plot(*points, color="black", linestyle=":", label="truth")
    for i, (name, line) in enumerate(lines.items()):
        mean, std = line if isinstance(line, tuple) else (line, None)
        mean = np.asarray(mean)[:, 0]
        axes.plot(x[:, 0], mean, color=f"C{i}", label=name)
        if std is not None:
            band = 2 * np.asarray(std)[:, 0]
            axes.fill_between(
                x[:, 0], mean - band, mean + band, color=f"C{i}", alpha=0.2
            )
    for name, batch, marker in (
        ("support", task.support, "o"),
        ("query", task.query, "x"),
    ):
        keep = slice(None) if batch.mask is None else np.asarray(batch.mask) > 0
        axes.scatter(
            np.asarray(batch.x)[keep, 0],
            np.asarray(batch.y)[keep, 0],
            color="black",
            marker=marker,
            s=20,
            label=name,
            zorder=3,
        )
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.legend()
    figure.savefig(path, dpi=120)


def ratings(given: np.ndarray, predicted: np.ndarray, path: Path) -> None:
    """Draw what a user gave to some items beside what was predicted, [n, 1] each."""
    figure = _figure(4.0, 4.0)
    axes = figure.subplots()
    order = np.argsort(given[:, 0], kind="stable")
    axes.plot(given[order, 0], color="black", linestyle=":", marker="o", label="given")
    axes.plot(predicted[order, 0], linestyle="", marker="x", label="predicted")
    axes.set_xlabel("items asked for, in the order of the user")
    axes.set_ylabel("rating")
    axes.legend()
    figure.savefig(path, dpi=120)


def _called(names: tuple[str, ...], ways: int) -> list[str]:
    """What each class of a task is called: the end of a long name."""
    known = [n if len(n) <= 12 else f"…{n[-11:]}" for n in names[:ways]]
    return known + [f"class {k}" for k in range(len(known), ways)]


def _figure(width, height):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _by_class(labels, ways) -> list[list[int]]:
    labels = np.asarray(labels)
    return [np.nonzero(labels == k)[0].tolist() for k in range(ways)]


def _image(cell, image, text, color):
    image = np.asarray(image)
    cell.axis("on")
    cell.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray_r")
    cell.set_xticks([])
    cell.set_yticks([])
    cell.set_xlabel(text, color=color, fontsize=8, labelpad=1)
    for side in cell.spines.values():
        side.set_color(color)
