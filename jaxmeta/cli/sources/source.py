"""What a problem says of itself: one file a problem, joined to a learner by `recipes`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmeta.cli.options import Options
from jaxmeta.learners.metric.nearest_neighbour import nearest_neighbour
from jaxmeta.learners.registry import Problem
from jaxmeta.training import plots
from jaxmeta.training.evaluate import Report, evaluate, summarize
from jaxmeta.types import Sampler, Task

Predict = Callable[[Any], Any]


@dataclass(frozen=True)
class Headline:
    """A metric that a person asks for first.

    metric: its name in a report. title: as people say it. scale, unit: as it is printed.
    baseline: (sampler, num_tasks, key) -> (name, report in the same metric), what must be
        beaten on the same tasks.
    """

    metric: str
    title: str
    baseline: Callable[[Any, int, jax.Array], tuple[str, Report]]
    scale: float = 1.0
    unit: str = ""


@dataclass(frozen=True)
class Source:
    """A problem: a data set or task distribution by name.

    description: one line. kind: what a learner must learn.
    samplers: options -> a sampler for each of "episodes" (of training), "validation" and
        "test", and for whatever else learners train on ("classes").
    headline: of those that a learner's report has, the first is printed.
    draw: (task, predict, path), the picture of one task; predict: inputs -> outputs.
    defaults: of options that are None. options: those that not every problem uses.
    learner: of arguments of learners. default_learner: where none is named.
    """

    name: str
    description: str
    kind: Problem
    samplers: Callable[[Options], dict[str, Sampler]]
    headline: tuple[Headline, ...]
    draw: Callable[[Task, Predict, Path], None]
    defaults: dict[str, Any]
    default_learner: str
    options: tuple[str, ...] = ()
    learner: dict[str, Any] = field(default_factory=dict)

    def of(self, report: Report) -> Headline:
        """The headline of a report."""
        return next(h for h in self.headline if h.metric in report.mean)


SOURCES: dict[str, Source] = {}


def source(**said: Any) -> Source:
    """Make a `Source` and list it in `SOURCES`."""
    made = Source(**said)
    SOURCES[made.name] = made
    return made


def everywhere(sampler: Sampler) -> dict[str, Sampler]:
    """One distribution to train, validate and test on."""
    return dict.fromkeys(("episodes", "validation", "test"), sampler)


def nearest(name: str, metric: str, ways: bool = False):
    """Baseline: the nearest support example; its report's "loss" is called `metric`."""

    def baseline(sampler, num_tasks, key):
        learner = nearest_neighbour(sampler.ways if ways else None)
        report = evaluate(learner, (), sampler, num_tasks=num_tasks, key=key)
        if metric in report.mean:
            return name, report
        return name, summarize({metric: report.per_task["loss"]})

    return baseline


MSE = tuple(  # a learner of a Gaussian reports it beside its loss
    Headline(metric, "mse", nearest("nearest neighbour in x", metric))
    for metric in ("mse", "loss")
)


def draw_curve(task: Task, predict: Predict, path: Path) -> None:
    """The picture of a task with scalar inputs and targets."""
    both = np.concatenate([task.support.x, task.query.x])
    x = np.linspace(both.min(), both.max(), 200, dtype=both.dtype)[:, None]
    outputs = predict(x)
    line = tuple(outputs) if isinstance(outputs, tuple) else outputs
    plots.curve(task, x, {"prediction": line}, path)
