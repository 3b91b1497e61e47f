"""The command line: `jaxmeta train`, `evaluate`, `curve`, `compare`, `sweep`, `predict`,
`replay`, `list`.

The subcommands of `train` and `sweep` and their flags are generated from the registry of
learners.
"""

import contextlib
import importlib.metadata
import inspect
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import docstring_parser
import optax
import tyro

from jaxmeta import checks, learners
from jaxmeta.cli import (
    compare,
    configs,
    curve,
    devices,
    interrupts,
    listing,
    predict,
    processes,
    recipes,
    replay,
    run,
    session,
    sweep,
)
from jaxmeta.cli.options import NAMES, Options
from jaxmeta.cli.sources import DEFAULT, SOURCES, Source
from jaxmeta.learners.registry import Facts


@dataclass(frozen=True)
class Train(Options):
    """Meta-train a learner, validate along the way, meta-test, leave a run folder.

    Example: jaxmeta train maml --data sinusoid --inner-steps 3
    """

    out: Path | None = None
    """The run folder; by default a new one under runs/."""
    resume: Path | None = None
    """Go on with a run, with its own config; only --steps can be another number."""
    config: Path | None = None
    """A config.toml of another run: its learner and flags, where none are given here."""
    devices: int | None = None
    """Devices that the tasks of a step are split over; on a CPU, as many of its cores."""
    distributed: bool = False
    """This is one of several processes, started by Slurm, Open MPI or Kubernetes, which
    train one run on all their devices, or on --devices of each."""
    progress: bool = True
    """Show a progress bar."""
    tensorboard: bool = False
    """Write the metrics for TensorBoard, too, to the folder tensorboard of the run."""


@dataclass(frozen=True)
class Evaluate:
    """Meta-test a trained run again; with its own settings, to the same digits.

    Example: jaxmeta evaluate runs/maml-glyphs-seed0
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    test_tasks: int | None = None
    """Another number of tasks."""
    seed: int | None = None
    """Another seed for the tasks."""
    devices: int | None = None
    """Devices that the tasks are split over; on a CPU, as many of its cores."""
    distributed: bool = False
    """This is one of several processes that test one run, as in train."""


@dataclass(frozen=True)
class Curve:
    """A run's test along one number: by inner steps, shots or ways.

    Example: jaxmeta curve runs/maml-glyphs-seed0 --over inner-steps=0,1,5,10
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    over: str
    """What is changed for the test: name=value,value,... of a flag."""
    test_tasks: int | None = None
    """Another number of tasks."""


@dataclass(frozen=True)
class Compare:
    """Runs side by side on the same tasks, with paired differences.

    Example: jaxmeta compare runs/maml-glyphs-seed0 runs/protonet-glyphs-seed0
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Two run folders or more."""
    test_tasks: int | None = None
    """Another number of tasks."""
    seed: int | None = None
    """Another seed for the tasks."""


@dataclass(frozen=True)
class Predict:
    """Label a folder of new images from a folder of labelled ones.

    Example: jaxmeta predict runs/protonet-glyphs-seed0 --support KNOWN --query NEW
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    support: Path
    """A folder with a folder of images for each class."""
    query: Path
    """A folder of images."""
    out: Path = Path("labels.csv")
    """The file to write: file, label, probability, and that of each class."""


@dataclass(frozen=True)
class Replay:
    """The tasks of one meta-step again: loss and gradient of each.

    Example: jaxmeta replay runs/maml-glyphs-seed0 1200
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    step: tyro.conf.Positional[int]
    """The meta-step, counted from 0."""


@dataclass(frozen=True)
class Sweep(Options):
    """Train and test a grid of settings in one process, seeds and rates in one program.

    Example: jaxmeta sweep maml --data sinusoid --over inner-lr=0.1,0.01 seed=0,1,2
    """

    over: tuple[str, ...] = ()
    """What is swept: name=value,value,... of any flag."""
    out: Path | None = None
    """A new folder for the results; by default one under runs/."""


@dataclass(frozen=True)
class List:
    """Show learners, data sets and models.

    Example: jaxmeta list
    """

    markdown: bool = False
    """Print docs/learners.md: the learners with papers and numbers."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line; a wrong use prints one sentence and exits with 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--version" in argv[:1]:
        print(f"jaxmeta {importlib.metadata.version('jaxmeta')}")
        return
    with _sentences():
        given = argv = configs.spelled(argv)
        _check_words(argv)
    if argv and argv[0] in LEARNING and _names_no_learner(argv[1:]):
        argv = [argv[0], _default_learner(argv), *argv[1:]]
    command = _read(argv)
    with _sentences():
        if isinstance(command, Evaluate):
            evaluate(command)
        elif isinstance(command, Curve):
            curve.curve(command.run, command.over, command.test_tasks)
        elif isinstance(command, Compare):
            compare.compare(command.runs, command.test_tasks, command.seed)
        elif isinstance(command, Predict):
            predict.predict(command.run, command.support, command.query, command.out)
        elif isinstance(command, Replay):
            replay.replay(command.run, command.step)
        elif isinstance(command, Sweep):
            _sweep(command)
        elif isinstance(command, List):
            print(listing.markdown(), end="") if command.markdown else listing.show()
        else:
            train(command, given)


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Errors and warnings as one sentence each, without where in the code they arose."""
    say = lambda text, *_, **__: print(f"warning: {text}", file=sys.stderr, flush=True)
    try:
        with warnings.catch_warnings():
            if not any(action == "error" for action, *_ in warnings.filters):
                warnings.showwarning = say
            yield
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(interrupts.CODE)
    except session.InterruptedRunError as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.code)


def train(command: Any, given: list[str]) -> None:
    """Meta-train, or go on with a run; then meta-test."""
    with processes.together(session.InterruptedRunError):
        mesh = devices.mesh_of(command.devices, command.distributed)
        with processes.quiet_but_first():
            begin = _begun if command.resume is None else _resumed
            folder, recipe = begin(command, given, mesh)
            shown = {"progress": command.progress, "tensorboard": command.tensorboard}
            session.train(folder, recipe, **shown)


def _resumed(command: Any, given: list[str], mesh) -> tuple[run.Run, recipes.Recipe]:
    """A run that goes on, perhaps to another number of steps."""
    folder, config = run.open_run(command.resume)
    configs.check_resumed(given, config)
    if command.steps is not None:
        config = configs.extended(config, command.steps)
    recipe = _made(config, mesh)
    if command.steps is not None:
        done = session.done(folder)
        if command.steps < done:
            raise ValueError(
                f"steps: the run has done {done}; expected as many or more, got "
                f"{command.steps}"
            )
        if processes.is_first():
            with folder.writing():
                run.write_config(folder, config)
    return folder, recipe


def _begun(command: Any, _: list[str], mesh) -> tuple[run.Run, recipes.Recipe]:
    """A new run, whose folder the first process makes."""
    config = _config(command)
    recipe = _made(config, mesh)  # before there is a folder
    name = f"{config['learner']}-{recipe.options.data}-seed{recipe.options.seed}"
    path = ""
    if processes.is_first():
        path = str(_created(command.out, Path("runs") / name, config).folder)
    return run.Run(processes.told(path)), recipe


def _made(config: dict[str, Any], mesh) -> recipes.Recipe:
    """A recipe, on the devices of a mesh if there is one."""
    recipe = recipes.make(**configs.parts(config))
    return recipe if mesh is None else replace(recipe, outer=recipe.outer_on(mesh))


def _created(out: Path | None, default: Path, config: dict[str, Any]) -> run.Run:
    """A new run folder: the given one, or the first that is free."""
    while out is None:
        with contextlib.suppress(FileExistsError):  # another process was faster
            return run.create(run.free_name(default), config)
    return run.create(out, config)


def evaluate(command: Evaluate) -> None:
    """Meta-test the latest checkpoint of a run."""
    if command.test_tasks is not None:
        checks.check_sizes(2, test_tasks=command.test_tasks)
    if command.seed is not None:
        checks.check_seeds(seed=command.seed)
    with processes.together(session.InterruptedRunError):
        mesh = devices.mesh_of(command.devices, command.distributed)
        with processes.quiet_but_first():
            folder, config = run.open_run(command.run)
            recipe = _made(config, mesh)
            again = {"num_tasks": command.test_tasks, "seed": command.seed}
            write = processes.is_first() and not folder.busy
            session.test(folder, recipe, **again, write=write)


def _sweep(command: Any) -> None:
    """Train and test a grid."""
    config = _config(command)
    recipe = recipes.make(**configs.parts(config))
    name = f"sweep-{config['learner']}-{recipe.options.data}"
    out = command.out or run.free_name(Path("runs") / name)
    sweep.sweep(recipe, command.over, out)


def _names_no_learner(rest: list[str]) -> bool:
    return not rest or (rest[0].startswith("-") and rest[0] not in ("-h", "--help"))


def _default_learner(argv: list[str]) -> str:
    """The one that suits the data set, if the command line names a known one."""
    return _source(argv).default_learner


def _source(argv: list[str]) -> Source:
    """The data set that a command line names, if it is a known one, or else the first."""
    words = [part for word in argv for part in word.split("=", 1)]  # --data=x too
    named = words[words.index("--data") + 1 :][:1] if "--data" in words else []
    return SOURCES.get(named[0] if named else DEFAULT, SOURCES[DEFAULT])


def _check_words(argv: list[str]) -> None:
    """Raise ValueError for a command or learner that there is not, with the nearest."""
    words = [word for word in argv[:2] if not word.startswith("-")]
    if words:
        checks.lookup({c.__name__.lower(): c for c in COMMANDS}, words[0], "command")
    if words[1:] and words[0] in LEARNING:
        checks.lookup(learners.REGISTRY, words[1], "learner")
    if any(word.split("=")[0] == "--lr" for word in argv):
        raise ValueError(
            "lr: there is no --lr; did you mean --learning-rate, of the outer optimiser, "
            "or --inner-lr?"
        )


COMMANDS = (Train, Evaluate, Curve, Compare, Sweep, Predict, Replay, List)
LEARNING = {"train": Train, "sweep": Sweep}  # commands that have a subcommand a learner


def _read(argv: list[str]) -> Any:
    """The command. A learner that is named is read alone: 60 others take long to build."""
    verb = argv[0] if argv else ""
    base = LEARNING.get(verb)
    if base is None:
        return tyro.cli(
            _commands(),
            args=argv or ["--help"],
            prog="jaxmeta",
            description="Functional meta-learning in JAX.",
        )
    if argv[1:2] and argv[1] in learners.REGISTRY:
        prog = f"jaxmeta {verb} {argv[1]}"
        kind = _command(argv[1], base, _source(argv), "--help" in argv or "-h" in argv)
        return tyro.cli(kind, args=argv[2:], prog=prog)
    each = [
        Annotated[_command(name, base, _source(argv)), tyro.conf.subcommand(name)]
        for name in learners.REGISTRY
    ]
    every: Any = Union[tuple(each)]  # noqa: UP007 - made at run time
    said = inspect.getdoc(base)
    return tyro.cli(every, args=argv[1:], prog=f"jaxmeta {verb}", description=said)


def _commands() -> Any:
    named = [
        Annotated[kind, tyro.conf.subcommand(kind.__name__.lower())]
        for kind in COMMANDS
    ]
    return Union[tuple(named)]  # noqa: UP007


def _command(name: str, base: type, source: Source, briefly: bool = False) -> type:
    """A dataclass with the flags of `train` (or `sweep`) and the arguments of one learner.

    Args: source: whose defaults the help tells. briefly: whether flags that would do
        nothing on it are left out.
    """
    entry = learners.REGISTRY[name]
    if source.kind not in entry.learns:
        source = next(s for s in SOURCES.values() if s.kind in entry.learns)
    doc = docstring_parser.parse(inspect.getdoc(entry.constructor) or "")
    texts = {p.arg_name: " ".join((p.description or "").split()) for p in doc.params}
    made: list[tuple[str, Any, Any]] = [
        (f.name, _optional(f.type, _hint(f.name, None, source)), field(default=None))
        for f in fields(base)
        if f.default is None
    ]
    if briefly:
        idle = {option for s in SOURCES.values() for option in s.uses} - {*source.uses}
        said = {f.name: f for f in fields(base)}
        made = [row for row in made if row[0] not in idle]
        made += [
            (n, tyro.conf.Suppress[said[n].type], field(default=said[n].default))
            for n in said
            if n in idle
        ]
    for argument, default in entry.defaults.items():
        kind: Any = _kind(entry, argument)
        if argument in (*Facts._fields, *NAMES) or kind is None:
            continue
        if argument in recipes.CHOICES:
            names = recipes.CHOICES[argument].items()
            default = next((n for n, v in names if v == default), default)
        kept = argument in entry.keeps  # whatever the data set says of it
        hint = f"(default: {default})" if kept else _hint(argument, default, source)
        annotated = _optional(kind | None, hint, texts[argument])
        made.append((argument, annotated, field(default=None)))
    made.append(("learner", tyro.conf.Suppress[str], field(default=name)))
    example = f"Example: jaxmeta {base.__name__.lower()} {name} --data {source.name}"
    namespace = {"__doc__": f"{doc.short_description}\n\n{entry.paper}\n\n{example}"}
    return make_dataclass(name, made, bases=(base,), namespace=namespace, frozen=True)


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
    kinds |= {float | optax.Schedule | None: float}
    return kinds.get(annotation)


def _optional(kind: Any, hint: str, text: str | None = None) -> Any:
    known = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}
    of = [k for k in get_args(kind) if k is not type(None)]
    metavar = known.get(of[0]) if len(of) == 1 else None
    said = {"help": text, "help_behavior_hint": hint, "metavar": metavar}
    return Annotated[kind, tyro.conf.arg(**said)]


def _hint(name: str, default: Any, source: Source) -> str:
    """What None stands for: what the data set says, or else the learner's default."""
    value = (source.defaults | source.learner).get(name, default)
    return "(optional)" if value is None else f"(default: {value})"


def _config(command: Any) -> dict[str, Any]:
    """What is written to config.toml: enough to build the run again."""
    values = asdict(command)
    options = {f.name: values.pop(f.name) for f in fields(Options)}
    for name in (
        *("out", "resume", "config", "progress", "tensorboard", "over", "devices"),
        "distributed",
    ):
        values.pop(name, None)
    config = {"learner": values.pop("learner"), "arguments": values, "options": options}
    return json.loads(json.dumps(config, default=lambda path: str(path.resolve())))
