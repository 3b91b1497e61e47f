"""From names and numbers to a problem and a learner: what the command line builds.

Everything here can be written in a few lines with the library itself; it is in one
place so that a run folder's config is enough to build the same run again.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import optax

from jaxmeta import adjoints, checks, learners, losses
from jaxmeta.cli.networks import FlagNetworks
from jaxmeta.cli.options import Options, check_options
from jaxmeta.cli.sources import DEFAULT, SOURCES, Source
from jaxmeta.learners.registry import Entry, Facts, build, facts_of
from jaxmeta.types import MetaLearner, Sampler

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
class Recipe:
    """A run, built: the learner for training and the one for testing (they differ in
    `ways`), the samplers to train, validate and test on, and the options with all
    defaults filled in."""

    options: Options
    source: Source
    train: MetaLearner
    test: MetaLearner
    samplers: dict[str, Sampler]  # "train", "validation", "test"


def make(name: str, arguments: dict[str, Any], options: Options) -> Recipe:
    """Build a run.

    Args:
        name: of the learner. arguments: of the learner; None = its default. options.
    Returns: a `Recipe`.
    Raises: ValueError for unknown names, a learner that does not solve such tasks, or
        anything that the parts find wrong.
    """
    entry = learners.get(name)
    check_options(options)
    source = checks.lookup(SOURCES, options.data or DEFAULT, "data set")
    _check_joined(name, entry, source, arguments)
    options = _filled(options, source, _usable(options, source, entry, name))
    samplers = source.samplers(options)
    hyper = _arguments(entry, source, options, arguments)
    train_facts, test_facts = _facts(samplers)
    test = _learner(name, test_facts, samplers["test"], options, hyper)
    train = test
    if train_facts != test_facts:
        train = _learner(name, train_facts, samplers["test"], options, hyper)
    params = [jax.eval_shape(m.init, jax.random.key(0)) for m in (train, test)]
    if params[0] != params[1]:
        raise ValueError(
            f"train_ways: the parameters of {name} depend on the number of classes of a "
            "task; leave --train-ways out"
        )
    used = {n: samplers[n] for n in ("validation", "test")}
    return Recipe(
        options, source, train, test, used | {"train": samplers[entry.trains_on]}
    )


def _check_joined(name: str, entry: Entry, source: Source, arguments) -> None:
    if unknown := sorted(set(arguments) - set(entry.defaults)):
        raise ValueError(
            f"{unknown[0]}: {name} has no such argument; expected some of "
            f"{', '.join(entry.defaults)}"
        )
    if source.kind not in entry.learns:
        able = [n for n, e in learners.REGISTRY.items() if source.kind in e.learns]
        raise ValueError(
            f"{name} does not learn {source.kind} and {source.name} is {source.kind}; "
            f"expected one of {', '.join(able)}"
        )


def _usable(options: Options, source: Source, entry: Entry, name: str) -> set[str]:
    """The options, of those that not every run uses, that this one does.

    Raises: ValueError for one that was given and would do nothing.
    """
    unlabelled, episodes = entry.unlabelled, entry.trains_on == "episodes"
    by_learner = {"unlabelled": unlabelled, "distractors": unlabelled}
    by_learner["train_ways"] = episodes
    some = {option for s in SOURCES.values() for option in s.options}
    usable = {o for o in source.options if by_learner.get(o, True)}
    for option in sorted(some - usable):
        if getattr(options, option):
            raise ValueError(
                f"{option}: {name} on {source.name} makes no use of it; leave "
                f"--{option.replace('_', '-')} out"
            )
    return usable


def _filled(options: Options, source: Source, usable: set[str]) -> Options:
    values = {n: getattr(options, n) for n in Options.__dataclass_fields__}
    values["data"] = source.name
    for name, default in source.defaults.items():
        if values[name] is None and (name in usable or name not in source.options):
            values[name] = default
    values["validate_every"] = values["validate_every"] or -(-values["steps"] // 5)
    values["save_every"] = values["save_every"] or values["validate_every"]
    return Options(**values)


def _arguments(entry: Entry, source: Source, options: Options, arguments) -> dict:
    """A learner's arguments: of the data set, of flags of the same name, as given."""
    suited = {k: v for k, v in source.learner.items() if k not in entry.keeps}
    shared = {k: v for k, v in asdict(options).items() if k not in Facts._fields}
    given = {k: v for k, v in arguments.items() if v is not None}
    known = {k: v for k, v in (suited | shared).items() if k in entry.defaults}
    return {k: _chosen(k, v) for k, v in (known | given).items()}


def _chosen(name: str, value: Any) -> Any:
    if name in CHOICES and isinstance(value, str):
        return checks.lookup(CHOICES[name], value, name)
    return value


def _facts(samplers: dict[str, Sampler]) -> tuple[Facts, Facts]:
    """What training tasks determine, and test tasks, which differ in their ways."""
    classes = getattr(samplers.get("classes"), "classes", None)
    train = facts_of(samplers["episodes"], classes=classes)
    return train, train._replace(ways=facts_of(samplers["test"]).ways)


def _learner(name: str, facts: Facts, sampler, options: Options, hyper) -> MetaLearner:
    x = jax.eval_shape(sampler.sample, jax.random.key(0)).support.x
    assert options.model and options.width
    networks = FlagNetworks(
        facts, x.shape[1:], options.model, options.width, options.strided
    )
    if learners.get(name).takes("features"):
        facts = facts._replace(features=networks.features)
    return build(name, facts, networks, **hyper)
