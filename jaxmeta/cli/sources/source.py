"""What a problem says of itself: one file a problem, joined to a learner by `recipes`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta.cli.networks import FlagNetworks
from jaxmeta.cli.options import Options
from jaxmeta.learners.metric.nearest_neighbour import nearest_neighbour
from jaxmeta.learners.registry import Facts, Problem, facts_of
from jaxmeta.outer import make_outer
from jaxmeta.tasks import changed
from jaxmeta.tasks.plain import task_shapes
from jaxmeta.training import plots
from jaxmeta.training.best import LOWER
from jaxmeta.training.evaluate import Report, evaluate, summarize
from jaxmeta.types import Batch, Outer, Sampler, Task

Predict = Callable[[Any], Any]
Reports = dict[str, Report]


@dataclass(frozen=True)
class Headline:
    """A metric that a person asks for first.

    metric: its name in a report. title: as people say it. scale, unit: as it is printed.
    curve: what is drawn over the meta-steps, if not the metric.
    baselines: (sampler, options, num_tasks, key) -> reports in the same metric of what must
        be beaten, or can't be, on the same tasks, by name.
    """

    metric: str
    title: str
    baselines: Callable[[Any, Options, int, jax.Array], Reports]
    scale: float = 1.0
    unit: str = ""
    curve: str = ""

    @property
    def lower(self) -> bool:
        """Whether less is better."""
        return self.metric in LOWER


class Known(NamedTuple):
    """What is known of a task that is drawn: names of its classes, the points of its true
    curve, and what is predicted before any adaptation."""

    names: tuple[str, ...] = ()
    truth: Batch | None = None
    before: Predict | None = None


@dataclass(frozen=True)
class Source:
    """A problem: a data set or task distribution by name.

    description: one line. kind: what a learner must learn.
    samplers: options -> a sampler for each of "episodes" (of training), "validation" and
        "test", and for whatever else learners train on ("classes").
    headline: of those that a learner's report has, the first is printed.
    defaults: of options that are None. options: those that not every problem uses.
    default_learner: where none is named. learner: of arguments of learners. unlabelled:
        whether support sets always have unlabelled examples.
    draw: (task, predict, path, known), the picture of one task; predict: inputs ->
        outputs; known: `Known`.
    same_curve: whether more queries of a key are on the same curve, which can be drawn.

    What it does with a learner are its methods, those of an inner loop on examples; see
    `acting` for the others.
    """

    name: str
    description: str
    kind: Problem
    samplers: Callable[[Options], dict[str, Any]]
    headline: tuple[Headline, ...]
    defaults: dict[str, Any]
    default_learner: str
    options: tuple[str, ...] = ()
    learner: dict[str, Any] = field(default_factory=dict)
    unlabelled: bool = False
    draw: Callable[[Task, Predict, Path, Known], None] | None = None
    same_curve: bool = False

    def of(self, report: Report) -> Headline:
        """The headline of a report."""
        return next(h for h in self.headline if h.metric in report.mean)

    @property
    def uses(self) -> tuple[str, ...]:
        """The options, of those that not every problem uses, that this one does."""
        return ("tasks_at_once", "reduce", *self.options)

    def facts(self, sampler: Any) -> Facts:
        """What its tasks determine."""
        return facts_of(sampler)

    def networks(self, facts: Facts, sampler: Any, options: Options) -> FlagNetworks:
        """The networks that flags ask for."""
        x = task_shapes(sampler).support.x
        return FlagNetworks.of(options, facts, x.shape[1:])

    def outer(
        self, learner: Any, sampler: Any, options: Options, mesh: Any = None
    ) -> Outer:
        """How it is trained on such tasks, on one device or those of a mesh."""
        del sampler
        assert options.tasks_per_step
        return make_outer(
            learner,
            optax.adam(options.learning_rate),
            tasks_per_step=options.tasks_per_step,
            tasks_at_once=options.tasks_at_once,
            mesh=mesh,
            reduce=options.reduce or "mean",
        )

    def judge(
        self, learner, params, sampler, options: Options, num_tasks: int, key, mesh=None
    ) -> Report:
        """How it is tested, on one device or those of a mesh."""
        del options
        how = {"num_tasks": num_tasks, "key": key, "mesh": mesh}
        return evaluate(learner, params, sampler, **how)

    def picture(
        self,
        learner,
        params,
        sampler,
        key,
        reports: Reports,
        path: Path,
        unadapted=None,
    ) -> None:
        """What it did: one task, with what it predicts; and, if it is given, what the
        learner without inner steps predicts."""
        del reports
        own = jax.random.fold_in(key, 0)
        task = sampler.sample(jax.random.clone(own))
        adapted = jax.jit(learner.adapt)(params, task.support)
        predict = jax.jit(learner.predict)
        assert self.draw is not None
        before = None
        if unadapted is not None:
            start = jax.jit(unadapted.adapt)(params, task.support)
            before = lambda inputs: jax.jit(unadapted.predict)(start, inputs)
        more = replace(sampler, queries=POINTS) if self.same_curve else None
        truth = None if more is None else more.sample(jax.random.clone(own)).query
        known = Known(_names(sampler, own), truth, before)
        self.draw(task, lambda inputs: predict(adapted, inputs), path, known)


def _names(sampler, key: jax.Array) -> tuple[str, ...]:
    """Of the classes of the task of a key, if the sampler knows them."""
    classes = getattr(sampler, "names", ())
    if not classes:
        return ()
    plan = jax.jit(sampler.plan)(key)
    turned = lambda i, turn: classes[i] + f" {90 * turn}°" * bool(turn)
    return tuple(map(turned, np.asarray(plan.classes), np.asarray(plan.turn)))


SOURCES: dict[str, Source] = {}
POINTS = 400  # of a curve that is drawn


def source(kind_of: type[Source] = Source, **said: Any) -> Source:
    """Make a `Source` and list it in `SOURCES`."""
    made = kind_of(**said)
    SOURCES[made.name] = made
    return made


def everywhere(sampler: Sampler) -> dict[str, Sampler]:
    """One distribution to train, validate and test on."""
    return dict.fromkeys(("episodes", "validation", "test"), sampler)


def _labelled(key: jax.Array, support: Batch) -> Batch:
    """A support set without its unlabelled examples."""
    del key
    known = support.y >= 0
    mask = known if support.mask is None else known & (support.mask > 0)
    y = jnp.where(known, support.y, 0)
    return Batch(support.x, y, mask.astype(jnp.float32))


def nearest(name: str, metric: str, ways: bool = False):
    """Baseline: the nearest labelled support example; its report's "loss" is called
    `metric`."""

    def baselines(sampler, options, num_tasks, key):
        learner = nearest_neighbour(sampler.ways if ways else None)
        given = changed(sampler, support=_labelled) if options.unlabelled else sampler
        report = evaluate(learner, (), given, num_tasks=num_tasks, key=key)
        if metric not in report.mean:
            report = summarize({metric: report.per_task["loss"]})
        return {name: report}

    return baselines


MSE = tuple(  # a learner of a Gaussian reports it beside its loss
    Headline(metric, "mse", nearest("nearest neighbour in x", metric))
    for metric in ("mse", "loss")
)


def draw_curve(task: Task, predict: Predict, path: Path, known: Known) -> None:
    """The picture of a task with scalar inputs and targets."""
    both = np.concatenate([task.support.x, task.query.x])
    x = np.linspace(both.min(), both.max(), 200, dtype=both.dtype)[:, None]
    outputs = predict(x)
    line = tuple(outputs) if isinstance(outputs, tuple) else outputs
    lines = {"prediction": line}
    if known.before is not None:
        lines["before adaptation"] = known.before(x)
    plots.curve(task, x, lines, path, known.truth)
