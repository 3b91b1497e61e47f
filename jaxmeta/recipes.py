"""From names and numbers to a problem and a learner: what the command line builds.

Everything here can be written in a few lines with the library itself; it is in one
place so that a run folder's config is enough to build the same run again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import optax

from jaxmeta import adjoints, checks, data, learners, losses, models, tasks
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


BATCH = 16  # examples of a task, for learners that train on minibatches of all classes


@dataclass(frozen=True)
class Options:
    """What a run is made of, besides the learner's own arguments.

    None stands for the default of the data set, see `jaxmeta list`.
    """

    data: str = "glyphs"
    """Data set or task distribution: glyphs, omniglot, sinusoid, gaussian-process."""
    root: Path | None = None
    """Folder of the Omniglot archives."""
    train_split: str | None = None
    """Omniglot: train on background, small1 or small2, and test on evaluation; by default
    the Vinyals split."""
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
    within_groups: bool = False
    """Draw all classes of a validation or test task from one alphabet or script."""
    unlabelled: int | None = None
    """Unlabelled support examples of each class, for semi-supervised learners, 2 by
    default."""
    distractors: int = 0
    """Classes more that only have unlabelled examples."""
    model: str | None = None
    """Network: conv4, mlp or resnet12."""
    width: int | None = None
    """Channels of conv4 (of resnet12's first block), or width of the layers of mlp."""
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
    change = {"rotations": bool(options.rotations), "jitter": options.jitter or 0.0}

    def sampler(dataset, ways, within_groups=False):
        return tasks.episodes(
            dataset,
            ways,
            _or(options.shots, 1),
            _or(options.queries, 1),
            within_groups=within_groups,
            unlabelled=_or(options.unlabelled, 0),
            distractors=options.distractors,
            **change,
        )

    return {
        "train": sampler(train, options.train_ways or options.ways),
        "classes": tasks.classes(train, BATCH, **change),
        "validation": sampler(validation, options.ways, options.within_groups),
        "test": sampler(test, options.ways, options.within_groups),
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
    if options.train_split is not None:
        if options.train_split not in ("background", "small1", "small2"):
            raise ValueError(
                "train_split: expected background, small1 or small2, got "
                f"{options.train_split!r}"
            )
        splits = (options.train_split, "evaluation", "evaluation")
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
    check_options(options)
    if unknown := sorted(set(arguments) - set(entry.defaults)):
        raise ValueError(
            f"{unknown[0]}: {name} has no such argument; expected some of "
            f"{', '.join(entry.defaults)}"
        )
    source = lookup(SOURCES, options.data, "data set")
    if source.problem not in entry.problems:
        able = [n for n, e in learners.REGISTRY.items() if source.problem in e.problems]
        raise ValueError(
            f"{name} does not learn {source.problem} and {options.data} is "
            f"{source.problem}; expected one of {', '.join(able)}"
        )
    options = _fill(options, source)
    options = _refine(options, source, entry, name)
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
        if entry.takes("ways"):
            hyper["ways"] = ways if source.problem == "classification" else None
        if entry.takes("x_dims"):
            shape = jax.eval_shape(samplers["train"].sample, jax.random.key(0))
            hyper["x_dims"] = math.prod(shape.support.x.shape[1:])
        if entry.models == ():
            hyper["width"] = _or(options.width, 64)
        if entry.takes("length"):
            shape = jax.eval_shape(samplers["train"].sample, jax.random.key(0))
            hyper.setdefault("length", len(shape.support.x))
        if entry.takes("classes"):
            hyper["classes"] = samplers["classes"].classes
        made = networks(entry, source, options, samplers)
        if "frozen_seed" in entry.defaults:
            hyper.setdefault("frozen_seed", options.seed)
        if "features" in entry.defaults:
            hyper["features"] = _features(made[0], samplers["train"])
        return entry.constructor(*made, **hyper)

    test = learner(options.ways)
    train_ways = options.train_ways or options.ways
    train = test if train_ways == options.ways else learner(train_ways)
    params = [jax.eval_shape(m.init, jax.random.key(0)) for m in (train, test)]
    fixed = entry.models in (("outputs",), ("context",))  # the models' heads are
    if params[0] != params[1] or (fixed and train_ways != options.ways):
        raise ValueError(
            f"train_ways: the parameters of {name} depend on the number of classes of a "
            "task; leave --train-ways out"
        )
    if entry.trains_on == "classes":
        samplers = samplers | {"train": samplers["classes"]}
    return Recipe(options, source, train, test, samplers)


def check_options(options: Options) -> None:
    """Raise ValueError for an option that is not of its kind, or out of range."""
    default = {f.name: f.default for f in fields(options)}
    given = {
        name: getattr(options, name)
        for name in default
        if getattr(options, name) is not None or default[name] is not None
    }
    some = lambda names: {n: given[n] for n in names.split() if n in given}
    checks.check_names(**some("data train_split model"))
    checks.check_sizes(2, **some("ways train_ways validation_tasks test_tasks"))
    checks.check_sizes(**some("shots queries width steps tasks_per_step tasks_at_once"))
    checks.check_sizes(**some("validate_every save_every chunk"))
    checks.check_sizes(0, **some("unlabelled distractors"))
    checks.check_numbers(least=0, **some("jitter"))
    checks.check_positive(**some("learning_rate"))
    checks.check_flags(**some("rotations within_groups strided"))
    checks.check_seeds(**some("seed"))


def _features(model: Model, sampler: Sampler) -> int:
    """How many features the model makes of one of the sampler's examples."""
    x = jax.eval_shape(sampler.sample, jax.random.key(0)).support.x
    params = jax.eval_shape(model.init, jax.random.key(0))
    return jax.eval_shape(model.apply, params, x).shape[-1]


def networks(entry, source: Source, options: Options, samplers) -> list[Model]:
    """The models that a learner's constructor takes, sized for the tasks."""
    width = _or(options.width, 64)
    if entry.models == ():
        return []
    if entry.models[0] == "encoder":
        return _processes(entry.models, width)
    if entry.models[0] == "grid":
        return _maps(entry.models, options, width, samplers)
    outputs = options.ways if source.problem == "classification" else 1
    if entry.models == ("features",):
        outputs = width if options.model == "mlp" else None
    context = 0
    if entry.models == ("context",):  # as many as CAVIA has for each
        context = 5 if source.problem == "regression" else 100
    if source.problem == "regression":
        if options.model != "mlp":
            raise ValueError(
                f"model: {options.data} has no images; expected mlp, got {options.model}"
            )
        return [models.mlp(1, outputs or width, (width, width), context=context)]
    shape = samplers["train"].images.shape[2:]
    if options.model == "mlp":
        return [models.mlp(shape, outputs or width, (width, width), context=context)]
    if options.model == "resnet12":
        if context:
            raise ValueError(
                "model: resnet12 has no context parameters; expected conv4"
            )
        widths = (width, 5 * width // 2, 5 * width, 10 * width)
        return [models.resnet12(outputs, input_shape=shape, widths=widths)]
    return [
        models.conv4(
            outputs,
            input_shape=shape,
            widths=width,
            strided=options.strided,
            context=context,
        )
    ]


def _processes(kinds: tuple[str, ...], width: int) -> list[Model]:
    """Networks of neural processes, x and y of one dimension each."""
    latent = width if "latent" in kinds else 0
    hidden = (width,) * 3
    made = {
        "encoder": lambda: models.mlp(2, width, hidden),
        "latent": lambda: models.set_encoder(2, 2 * width, hidden=hidden),
        "attention": lambda: models.cross_attention(1, width, width=width, heads=1),
        "decoder": lambda: models.mlp(1 + width + latent, 2, hidden),
    }
    return [made[kind]() for kind in kinds]


def _maps(
    kinds: tuple[str, ...], options: Options, width: int, samplers
) -> list[Model]:
    """Networks over feature maps, a quarter of the image's size."""
    shape = samplers["train"].images.shape[2:]
    if options.model != "conv4":
        raise ValueError(
            f"model: this learner compares feature maps; expected conv4, got {options.model}"
        )
    maps = models.conv4(None, input_shape=shape, widths=width, pools=2, grid=True)
    size = (shape[0] // 4, shape[1] // 4, 2 * width)
    module = models.relation_module(size, widths=width)
    return [maps, module][: len(kinds)]


def _refine(options: Options, source: Source, entry, name: str) -> Options:
    """Refuse options that would do nothing; fill in what depends on the learner."""
    images = source.problem == "classification"
    idle = {
        "train_split": options.train_split and options.data != "omniglot",
        "within_groups": options.within_groups and not images,
        "rotations": options.rotations and not images,
        "jitter": options.jitter and not images,
        "train_ways": options.train_ways and not images,
        "unlabelled": options.unlabelled and not entry.unlabelled,
        "distractors": options.distractors and not entry.unlabelled,
    }
    if entry.trains_on == "classes":
        idle["train_ways"] = options.train_ways
    for option, useless in idle.items():
        if useless:
            raise ValueError(
                f"{option}: {name} on {options.data} makes no use of it; leave "
                f"--{option.replace('_', '-')} out"
            )
    if entry.unlabelled and images:
        options = replace(options, unlabelled=_or(options.unlabelled, 2))
    lookup(models.MODELS, options.model or "", "model")
    return options


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
