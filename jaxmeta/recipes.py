"""From names and numbers to a problem and a learner: what the command line builds.

Everything here can be written in a few lines with the library itself; it is in one
place so that a run folder's config is enough to build the same run again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import optax

from jaxmeta import adjoints, data, learners, losses, models, tasks
from jaxmeta.learners.registry import lookup
from jaxmeta.types import MetaLearner, Model, Sampler

RULES: dict[str, Callable] = {
    "sgd": optax.sgd,
    # without eps_root the meta-gradient is NaN where an inner gradient is zero
    "adam": partial(optax.adam, eps_root=1e-8),
    "adam-b1-0": partial(optax.adam, b1=0.0, eps_root=1e-8),
}
ADJOINTS = {
    "mixed": adjoints.MixedMode(),
    "reverse": adjoints.Reverse(),
    "first-order": adjoints.FirstOrder(),
    "truncated-1": adjoints.Truncated(1),
    "truncated-5": adjoints.Truncated(5),
    "truncated-20": adjoints.Truncated(20),
    "implicit": adjoints.Implicit(),
    "forward": adjoints.Forward(),
}
LOSSES = {"cross-entropy": losses.cross_entropy, "mse": losses.mse}
# Learner arguments that are functions or objects, chosen by name
CHOICES: dict[str, dict[str, Any]] = {
    "rule": RULES,
    "adjoint": ADJOINTS,
    "loss": LOSSES,
}


@dataclass(frozen=True)
class Options:
    """What a run is made of, besides the learner's own arguments.

    None stands for the default of the data set, see `jaxmeta list`.
    """

    data: str = "glyphs"
    """Data set or task distribution: glyphs, omniglot, sinusoid, gaussian-process."""
    root: Path | None = None
    """Folder of the Omniglot archives."""
    ways: int = 5
    """Classes of a task."""
    train_ways: int | None = None
    """Classes of a training task, for learners that allow another number (metric, solver)."""
    shots: int | None = None
    """Support examples of each class, or support points."""
    queries: int | None = None
    """Query examples of each class, or query points."""
    rotations: bool | None = None
    """Take images turned by 90 degrees as classes of their own."""
    jitter: float | None = None
    """Strength of the random affine change of images; 0 = none."""
    model: str | None = None
    """Network: conv4 or mlp."""
    width: int | None = None
    """Channels of conv4, or width of the layers of mlp."""
    strided: bool = True
    """conv4 with stride-2 convolutions (four times faster) in place of max-pooling."""
    steps: int | None = None
    """Meta-steps."""
    tasks_per_step: int | None = None
    """Tasks whose meta-gradients are averaged in one step."""
    tasks_at_once: int | None = None
    """Tasks in one vmap; by default what is fastest on the backend."""
    learning_rate: float = 1e-3
    """Of the outer optimiser, Adam."""
    seed: int = 0
    """Everything random is derived from it."""
    validate_every: int | None = None
    """Steps between validations; by default a fifth of the run."""
    validation_tasks: int = 200
    """Tasks of a validation."""
    save_every: int | None = None
    """Steps between checkpoints; by default as often as validations."""
    chunk: int = 100
    """Steps between two updates of the progress bar and lines of metrics.jsonl."""
    test_tasks: int = 600
    """Tasks of the final test."""


@dataclass(frozen=True)
class Source:
    """A data set or task distribution by name, with the defaults of its runs."""

    description: str
    problem: Literal["classification", "regression"]
    make: Callable[[Options], dict[str, Sampler]]
    defaults: dict[str, Any]  # of Options that are None
    learner: dict[str, Any] = field(default_factory=dict)  # of learner arguments
    default_learner: str = "protonet"


def _images(options: Options, train, validation, test) -> dict[str, Sampler]:
    def sampler(dataset, ways):
        return tasks.episodes(
            dataset,
            ways,
            _or(options.shots, 1),
            _or(options.queries, 1),
            rotations=bool(options.rotations),
            jitter=options.jitter or 0.0,
        )

    return {
        "train": sampler(train, options.train_ways or options.ways),
        "validation": sampler(validation, options.ways),
        "test": sampler(test, options.ways),
    }


def _glyphs(options: Options) -> dict[str, Sampler]:
    return _images(options, *(data.glyphs(s) for s in ("train", "validation", "test")))


def _omniglot(options: Options) -> dict[str, Sampler]:
    if options.root is None:
        raise ValueError(
            "omniglot: expected --root, the folder with images_background.zip and "
            "images_evaluation.zip (the official archives)"
        )
    splits = ("vinyals_train", "vinyals_validation", "vinyals_test")
    return _images(options, *(data.omniglot(options.root, s) for s in splits))


def _sinusoid(options: Options) -> dict[str, Sampler]:
    sampler = tasks.sinusoid(_or(options.shots, 10), _or(options.queries, 10))
    return {name: sampler for name in ("train", "validation", "test")}


def _gaussian_process(options: Options) -> dict[str, Sampler]:
    if options.shots is not None or options.queries is not None:
        raise ValueError(
            "gaussian-process: its tasks have 3 to 46 support and query points, drawn "
            "anew for each; leave --shots and --queries out"
        )
    sampler = tasks.gaussian_process()
    return {name: sampler for name in ("train", "validation", "test")}


_FEW_SHOT = {"shots": 1, "queries": 5, "steps": 4000, "tasks_per_step": 4}
SOURCES: dict[str, Source] = {
    "glyphs": Source(
        "letters of six scripts drawn from matplotlib's typefaces; no download",
        "classification",
        _glyphs,
        _FEW_SHOT | {"rotations": False, "jitter": 1.0, "model": "conv4", "width": 64},
    ),
    "omniglot": Source(
        "1,623 hand-written characters, Vinyals split; needs --root",
        "classification",
        _omniglot,
        _FEW_SHOT | {"rotations": True, "jitter": 0.0, "model": "conv4", "width": 64},
    ),
    "sinusoid": Source(
        "sine waves of random amplitude and phase",
        "regression",
        _sinusoid,
        {"shots": 10, "queries": 10, "steps": 20_000, "tasks_per_step": 25}
        | {"model": "mlp", "width": 40},
        {"inner_lr": 0.01},
        "maml",
    ),
    "gaussian-process": Source(
        "functions drawn from Gaussian processes, squared-exponential kernel",
        "regression",
        _gaussian_process,
        {"steps": 10_000, "tasks_per_step": 16, "model": "mlp", "width": 128},
        {"inner_lr": 0.01, "min_std": 0.01},
        "cnp",
    ),
}


@dataclass(frozen=True)
class Recipe:
    """A run, built: the learner for training and the one for testing (they differ in
    `ways`), a sampler for each split, and the options with all defaults filled in."""

    options: Options
    source: Source
    train: MetaLearner
    test: MetaLearner
    samplers: dict[str, Sampler]


def build(name: str, arguments: dict[str, Any], options: Options) -> Recipe:
    """Build a run.

    Args:
        name: of the learner. arguments: of the learner; None = its default. options.
    Returns: a `Recipe`.
    Raises: ValueError for unknown names, a learner that does not solve such tasks, or
        whatever its parts find wrong.
    """
    entry = learners.get(name)
    source = lookup(SOURCES, options.data, "data set")
    if source.problem not in entry.problems:
        able = [n for n, e in learners.REGISTRY.items() if source.problem in e.problems]
        raise ValueError(
            f"{name} does not learn {source.problem} and {options.data} is "
            f"{source.problem}; expected one of {', '.join(able)}"
        )
    options = _fill(options, source)
    fixed = entry.models in (("outputs",), ("context",))
    if fixed and options.train_ways not in (None, options.ways):
        raise ValueError(
            f"train_ways: the head of {name} has as many outputs as a task has classes; "
            "leave --train-ways out"
        )
    given = {k: v for k, v in arguments.items() if v is not None}
    known = {k: v for k, v in source.learner.items() if k in entry.defaults}
    if entry.models == ("context",):  # its step sizes are of another order
        known = {}
    hyper = known | given
    hyper = {k: _choose(k, v) for k, v in hyper.items()}
    if "loss" in entry.defaults and source.problem == "regression":
        hyper = {"loss": losses.mse} | hyper
    samplers = source.make(options)

    def learner(ways):
        if "ways" in entry.defaults:
            hyper["ways"] = ways if source.problem == "classification" else None
        made = networks(entry, source, options, samplers)
        if "frozen_seed" in entry.defaults:
            hyper.setdefault("frozen_seed", options.seed)
        if "features" in entry.defaults:
            hyper["features"] = _features(made[0], samplers["train"])
        return entry.constructor(*made, **hyper)

    test = learner(options.ways)
    train_ways = options.train_ways or options.ways
    train = test if train_ways == options.ways else learner(train_ways)
    return Recipe(options, source, train, test, samplers)


def _features(model: Model, sampler: Sampler) -> int:
    """How many features the model makes of one of the sampler's examples."""
    x = jax.eval_shape(sampler.sample, jax.random.key(0)).support.x
    params = jax.eval_shape(model.init, jax.random.key(0))
    return jax.eval_shape(model.apply, params, x).shape[-1]


def networks(entry, source: Source, options: Options, samplers) -> list[Model]:
    """The models that a learner's constructor takes, sized for the tasks."""
    width = _or(options.width, 64)
    if entry.models == ("encoder", "decoder"):
        encoder = models.mlp(2, width, (width,) * 3)
        return [encoder, models.mlp(1 + width, 2, (width,) * 3)]
    outputs = options.ways if source.problem == "classification" else 1
    if entry.models == ("features",):
        outputs = None if options.model == "conv4" else width
    context = 0
    if entry.models == ("context",):  # as many as CAVIA has for each
        context = 5 if source.problem == "regression" else 100
    lookup(models.MODELS, options.model or "", "model")
    if source.problem == "regression":
        if options.model != "mlp":
            raise ValueError(
                f"model: {options.data} has no images; expected mlp, got {options.model}"
            )
        return [models.mlp(1, outputs or width, (width, width), context=context)]
    shape = samplers["train"].images.shape[2:]
    if options.model == "mlp":
        return [models.mlp(shape, outputs or width, (width, width), context=context)]
    return [
        models.conv4(
            outputs,
            input_shape=shape,
            widths=width,
            strided=options.strided,
            context=context,
        )
    ]


def _fill(options: Options, source: Source) -> Options:
    values = {f.name: getattr(options, f.name) for f in fields(options)}
    for name, default in source.defaults.items():
        if values[name] is None:
            values[name] = default
    values["validate_every"] = values["validate_every"] or -(-values["steps"] // 5)
    values["save_every"] = values["save_every"] or values["validate_every"]
    return Options(**values)


def _or(value: int | None, default: int) -> int:
    """The value, 0 included: what is wrong with it is said by whoever gets it."""
    return default if value is None else value


def _choose(name: str, value: Any) -> Any:
    if name in CHOICES and isinstance(value, str):
        return lookup(CHOICES[name], value, name)
    return value
