"""The command line: `jaxmeta train`, `jaxmeta evaluate`, `jaxmeta list`.

The subcommands of `train` and their flags are generated from the registry of learners.
"""

import inspect
import json
import sys
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_origin

import docstring_parser
import tyro

from jaxmeta import checks, learners
from jaxmeta.cli import listing, recipes, run, session
from jaxmeta.cli.options import NAMES, Options
from jaxmeta.cli.sources import DEFAULT, SOURCES
from jaxmeta.learners.registry import Facts


@dataclass(frozen=True)
class Train(Options):
    """Meta-train a learner, validate along the way, meta-test, leave a run folder."""

    out: Path | None = None
    """The run folder; by default a new one under runs/."""
    resume: Path | None = None
    """Go on with an interrupted run; its own config is used, other flags are not."""
    progress: bool = True
    """Show a progress bar."""


@dataclass(frozen=True)
class Evaluate:
    """Meta-test a trained run again; with its own settings, to the same digits."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    test_tasks: int | None = None
    """Another number of tasks."""
    seed: int | None = None
    """Another seed for the tasks."""


@dataclass(frozen=True)
class List:
    """Show learners, data sets and models."""

    markdown: bool = False
    """Print docs/learners.md: the learners with papers and numbers."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line; a wrong use prints one sentence and exits with 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["train"] and _names_no_learner(argv[1:]):
        argv.insert(1, _default_learner(argv))
    command = _read(argv)
    try:
        if isinstance(command, Evaluate):
            evaluate(command)
        elif isinstance(command, List):
            print(listing.markdown(), end="") if command.markdown else listing.show()
        else:
            train(command)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def train(command: Any) -> None:
    """Meta-train, or go on with an interrupted run; then meta-test."""
    if command.resume is not None:
        folder, config = run.open_run(command.resume)
        recipe = recipes.make(**_parts(config))
    else:
        config = _config(command)
        recipe = recipes.make(**_parts(config))  # what is wrong is said before a folder
        name = f"{config['learner']}-{recipe.options.data}-seed{recipe.options.seed}"
        out = command.out or run.free_name(Path("runs") / name)
        folder = run.create(out, config)
    try:
        session.train(folder, recipe, progress=command.progress)
    except KeyboardInterrupt:
        print(
            f"interrupted; go on with: jaxmeta train --resume {folder.folder}",
            file=sys.stderr,
        )
        sys.exit(130)


def evaluate(command: Evaluate) -> None:
    """Meta-test the latest checkpoint of a run."""
    if command.test_tasks is not None:
        checks.check_sizes(2, test_tasks=command.test_tasks)
    if command.seed is not None:
        checks.check_seeds(seed=command.seed)
    folder, config = run.open_run(command.run)
    recipe = recipes.make(**_parts(config))
    session.test(folder, recipe, num_tasks=command.test_tasks, seed=command.seed)


def _names_no_learner(rest: list[str]) -> bool:
    return not rest or (rest[0].startswith("-") and rest[0] not in ("-h", "--help"))


def _default_learner(argv: list[str]) -> str:
    """The one that suits the data set, if the command line names a known one."""
    words = [part for word in argv for part in word.split("=", 1)]  # --data=x too
    named = words[words.index("--data") + 1 :][:1] if "--data" in words else []
    source = SOURCES.get(named[0] if named else DEFAULT, SOURCES[DEFAULT])
    return source.default_learner


def _read(argv: list[str]) -> Any:
    """The command. A learner that is named is read alone: 60 others take long to build."""
    if argv[:1] == ["train"] and argv[1:2] and argv[1] in learners.REGISTRY:
        name = argv[1]
        return tyro.cli(_command(name), args=argv[2:], prog=f"jaxmeta train {name}")
    described = {"prog": "jaxmeta", "description": "Functional meta-learning in JAX."}
    return tyro.cli(_commands(), args=argv, **described)


def _commands() -> Any:
    each = [
        Annotated[_command(name), tyro.conf.subcommand(name)]
        for name in learners.REGISTRY
    ]
    return Union[  # noqa: UP007 - made at run time
        Annotated[
            Union[tuple(each)],  # noqa: UP007
            tyro.conf.subcommand("train", description=inspect.getdoc(Train)),
        ],
        Annotated[Evaluate, tyro.conf.subcommand("evaluate")],
        Annotated[List, tyro.conf.subcommand("list")],
    ]


def _command(name: str) -> type:
    """A dataclass with the flags of `train` and the arguments of one learner."""
    entry = learners.REGISTRY[name]
    doc = docstring_parser.parse(inspect.getdoc(entry.constructor) or "")
    texts = {p.arg_name: " ".join((p.description or "").split()) for p in doc.params}
    made: list[tuple[str, Any, Any]] = [
        (f.name, _optional(f.type, _hint(f.name, None)), field(default=None))
        for f in fields(Train)
        if f.default is None
    ]
    for argument, default in entry.defaults.items():
        kind: Any = _kind(entry, argument)
        if argument in (*Facts._fields, *NAMES) or kind is None:
            continue
        if argument in recipes.CHOICES:
            names = recipes.CHOICES[argument].items()
            default = next((n for n, v in names if v == default), default)
        annotated = _optional(kind | None, _hint(argument, default), texts[argument])
        made.append((argument, annotated, field(default=None)))
    made.append(("learner", tyro.conf.Suppress[str], field(default=name)))
    namespace = {"__doc__": f"{doc.short_description}\n\n{entry.paper}"}
    return make_dataclass(name, made, bases=(Train,), namespace=namespace, frozen=True)


def _kind(entry: learners.Entry, argument: str) -> Any:
    """The type of a flag, or None for what can't be written on a command line."""
    if argument in recipes.CHOICES:
        return Literal[tuple(recipes.CHOICES[argument])]
    default = entry.defaults[argument]
    annotation = inspect.signature(entry.constructor).parameters[argument].annotation
    if get_origin(annotation) is Literal:
        return annotation
    if isinstance(default, tuple) and default:
        return tuple[type(default[0]), ...]
    if default is not None:
        return type(default)
    words = tuple[str, ...]
    kinds = {int | None: int, float | None: float, words | None: words}
    return kinds.get(annotation)


def _optional(kind: Any, hint: str, text: str | None = None) -> Any:
    return Annotated[kind, tyro.conf.arg(help=text, help_behavior_hint=hint)]


def _hint(name: str, default: Any) -> str:
    """What None stands for: the learner's default, or that of each data set."""
    known = [] if default is None else [str(default)]
    for source, s in SOURCES.items():
        values = s.defaults | s.learner
        if name in values:
            known.append(f"{values[name]} for {source}")
    return f"(default: {', '.join(known)})" if known else "(optional)"


def _config(command: Any) -> dict[str, Any]:
    """What is written to config.json: enough to build the run again."""
    values = asdict(command)
    options = {f.name: values.pop(f.name) for f in fields(Options)}
    for name in ("out", "resume", "progress"):
        values.pop(name)
    config = {"learner": values.pop("learner"), "arguments": values, "options": options}
    return json.loads(json.dumps(config, default=lambda path: str(path.resolve())))


def _parts(config: dict[str, Any]) -> dict[str, Any]:
    """What `recipes.make` takes. Raises: ValueError for a config of another form."""
    known = {f.name for f in fields(Options)}
    if not isinstance(config, dict):
        raise ValueError("config.json is no object; is it a jaxmeta run?")
    try:
        for name in ("options", "arguments"):
            if not isinstance(config[name], dict):
                raise ValueError(
                    f"config.json: {name}: expected an object, got {config[name]!r}"
                )
        options = dict(config["options"])
        if unknown := set(options) - known:
            raise ValueError(f"config.json has unknown options: {sorted(unknown)}")
        if options["root"] is not None:
            checks.check_names(root=options["root"])
            options["root"] = Path(options["root"])
        return {
            "name": config["learner"],
            "arguments": config["arguments"],
            "options": Options(**options),
        }
    except KeyError as error:
        raise ValueError(f"config.json lacks {error}; is it a jaxmeta run?") from error
