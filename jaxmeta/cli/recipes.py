"""From names and numbers to a problem and a learner: what the command line builds.

Everything here can be written in a few lines with the library itself; it is in one
place so that a run folder's config is enough to build the same run again.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import optax

from jaxmeta import adjoints, checks, learners, losses
from jaxmeta.cli.networks import FlagNetworks
from jaxmeta.cli.options import WATCHING, Options, check_options
from jaxmeta.cli.sources import DEFAULT, SOURCES, Source
from jaxmeta.learners.registry import Entry, Facts, build
from jaxmeta.learners.reinforcement import surrogates
from jaxmeta.types import Outer

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
SURROGATES = {
    "score": surrogates.score,
    "lvc": surrogates.lvc,
    "loaded-dice": surrogates.loaded_dice,
    "importance": surrogates.importance,
}
# Learner arguments that are functions or objects, chosen by name
CHOICES: dict[str, dict[str, Any]] = {
    "rule": RULES,
    "adjoint": ADJOINTS,
    "loss": LOSSES,
    "surrogate": SURROGATES,
}


@dataclass(frozen=True)
class Recipe:
    """A run, built: the learner for training and the one for testing (they differ in
    `ways`), how it is trained, the samplers to train, validate and test on (None = there
    is none), and the options with all defaults filled in."""

    options: Options
    source: Source
    train: Any
    test: Any
    outer: Outer
    outer_on: Callable[[Any], Outer]  # the same on the devices of a mesh
    samplers: dict[str, Any]  # "train", "validation", "test"
    unadapted: Any  # the one for training, without inner steps; None = it has none
    with_ways: Callable[[int], Any]  # the learner for tests of so many classes
    with_arguments: Callable[
        ..., Any
    ]  # the one for training, with others, traced or not
    remade: Callable[..., "Recipe"]  # with other arguments of the learner, or options
    about: dict[
        str, Any
    ]  # what was asked for, of what changes the numbers of a training


def make(name: str, arguments: dict[str, Any], options: Options) -> Recipe:
    """Build a run.

    Args:
        name: of the learner. arguments: of the learner; None = its default. options.
    Returns: a `Recipe`.
    Raises: ValueError for unknown names, a learner that does not solve such tasks, or
        anything that the parts find wrong.
    """
    entry, asked_for = learners.get(name), options
    check_options(options)
    source = checks.lookup(SOURCES, options.data or DEFAULT, "data set")
    _check_joined(name, entry, source, arguments)
    usable = _usable(options, source, entry, name)
    options = _filled(options, source, entry, usable)
    samplers = source.samplers(options)
    if samplers["validation"] is None:
        _check_unvalidated(source, options)
    hyper = _arguments(entry, source, options, arguments)
    train_facts, test_facts = _facts(source, samplers)
    make_for = lambda facts, **other: _learner(
        name, facts, source.networks(facts, samplers["test"], options), hyper | other
    )
    test = make_for(test_facts)
    train = test if train_facts == test_facts else make_for(train_facts)
    params = [jax.eval_shape(m.init, jax.random.key(0)) for m in (train, test)]
    if params[0] != params[1]:
        raise ValueError(
            f"train_ways: the parameters of {name} depend on the number of classes of a "
            "task; leave --train-ways out"
        )
    used = {n: samplers[n] for n in ("validation", "test")}
    outer_on = partial(source.outer, train, samplers["episodes"], options)
    used["train"] = samplers[entry.trains_on]
    asked = {n: v for n, v in asdict(options).items() if n not in WATCHING}
    about = {"learner": name, **asked, **arguments}
    with_ways = lambda ways: make_for(test_facts._replace(ways=ways))
    with_arguments = lambda **other: make_for(train_facts, **other)
    remade = partial(_remade, name, arguments, asked_for)
    return Recipe(
        *(options, source, train, test, outer_on(None), outer_on, used),
        *(_unadapted(entry, with_arguments), with_ways, with_arguments, remade),
        _plain(about),
    )


def _unadapted(entry: Entry, with_arguments) -> Any:
    """The learner with no inner step, if it has inner steps and can do without."""
    if "inner_steps" not in entry.defaults or entry.acts:
        return None
    try:
        return with_arguments(inner_steps=0)
    except ValueError:  # it takes at least one
        return None


def _remade(name, arguments, options, /, **other) -> Recipe:
    own = {k: v for k, v in other.items() if k in Options.__dataclass_fields__}
    rest = {k: v for k, v in other.items() if k not in own}
    return make(name, arguments | rest, replace(options, **own))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back; None is absent."""
    return json.loads(json.dumps({k: v for k, v in values.items() if v is not None}))


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
    if source.unlabelled and not entry.unlabelled:
        able = [n for n, e in learners.REGISTRY.items() if e.unlabelled]
        raise ValueError(
            f"{name} makes no use of unlabelled examples and {source.name} has them; "
            f"expected one of {', '.join(able)}"
        )


def _check_unvalidated(source: Source, options: Options) -> None:
    if options.patience is not None or options.tested == "best":
        flag = "tested" if options.patience is None else "patience"
        raise ValueError(
            f"{flag}: nothing is validated on {source.name}; leave --{flag} out"
        )


def _usable(options: Options, source: Source, entry: Entry, name: str) -> set[str]:
    """The options, of those that not every run uses, that this one does.

    Raises: ValueError for one that was given and would do nothing.
    """
    unlabelled, episodes = entry.unlabelled, entry.trains_on == "episodes"
    by_learner = {"unlabelled": unlabelled, "distractors": unlabelled}
    by_learner["train_ways"] = episodes
    some = {option for s in SOURCES.values() for option in s.uses}
    usable = {o for o in source.uses if by_learner.get(o, True)}
    for option in sorted(some - usable):
        if getattr(options, option):
            raise ValueError(
                f"{option}: {name} on {source.name} makes no use of it; leave "
                f"--{option.replace('_', '-')} out"
            )
    return usable


def _filled(
    options: Options, source: Source, entry: Entry, usable: set[str]
) -> Options:
    values = {n: getattr(options, n) for n in Options.__dataclass_fields__}
    values["data"] = source.name
    for name, default in (source.defaults | entry.run).items():
        if values[name] is None and (name in usable or name not in source.uses):
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


def _facts(source: Source, samplers: dict[str, Any]) -> tuple[Facts, Facts]:
    """What training tasks determine, and test tasks, which differ in their ways."""
    classes = getattr(samplers.get("classes"), "classes", None)
    train = source.facts(samplers["episodes"])._replace(classes=classes)
    return train, train._replace(ways=source.facts(samplers["test"]).ways)


def _learner(name: str, facts: Facts, networks: FlagNetworks, hyper) -> Any:
    if learners.get(name).takes("features"):
        facts = facts._replace(features=networks.features)
    return build(name, facts, networks, **hyper)
