"""The flags of a run, besides the learner's own arguments."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from jaxmeta import checks


@dataclass(frozen=True)
class Options:
    """What a run is made of, besides the learner's own arguments.

    None stands for the default of the data set, see `jaxmeta list`.
    """

    data: str | None = None
    """Data set or task distribution, see `jaxmeta list`; by default the first."""
    root: Path | None = None
    """Folder or file of the data, where they are the user's."""
    train_split: str | None = None
    """Split to train on, where there are several."""
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
    """Unlabelled support examples of each class, for semi-supervised learners."""
    distractors: int = 0
    """Additional classes of which only unlabelled examples are drawn."""
    arms: int | None = None
    """Arms of a bandit."""
    pulls: int | None = None
    """Pulls of a bandit in an episode."""
    episodes: int | None = None
    """Episodes of a task, before each update of an agent and after the last."""
    epochs: int | None = None
    """Passes over the trials of a step, of agents."""
    minibatches: int | None = None
    """Parts of such a pass."""
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
    reduce: Literal["mean", "tree"] | None = None
    """How gradients are added up; tree: the same bits on 1, 2, 4, ... devices."""
    learning_rate: float = 1e-3
    """Of the outer optimiser, Adam."""
    seed: int = 0
    """Everything random is derived from it."""
    validate_every: int | None = None
    """Steps between validations; by default a fifth of the run."""
    validation_tasks: int = 200
    """Tasks of a validation."""
    patience: int | None = None
    """Validations in a row without a better one after which training ends."""
    tested: Literal["last", "best"] = "last"
    """Which state is tested: the last, or the best by validation."""
    save_every: int | None = None
    """Steps between checkpoints, by default as between validations; and one each minute."""
    chunk: int = 100
    """Steps between two updates of the progress bar and lines of metrics.jsonl."""
    test_tasks: int = 600
    """Tasks of the final test."""


NAMES = tuple(f.name for f in fields(Options))
# how often one looks, and how long it goes on: not what is trained
WATCHING = (
    *("steps", "validate_every", "validation_tasks", "patience", "tested"),
    *("save_every", "chunk", "test_tasks", "root"),
)


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
    checks.check_choice("tested", given["tested"], ("last", "best"))
    if "reduce" in given:
        checks.check_choice("reduce", given["reduce"], ("mean", "tree"))
    checks.check_sizes(2, **some("ways train_ways validation_tasks test_tasks"))
    checks.check_sizes(**some("shots queries width steps tasks_per_step tasks_at_once"))
    checks.check_sizes(**some("validate_every save_every chunk patience"))
    checks.check_sizes(**some("arms pulls episodes epochs minibatches"))
    checks.check_sizes(0, **some("unlabelled distractors"))
    checks.check_numbers(least=0, **some("jitter"))
    checks.check_positive(**some("learning_rate"))
    checks.check_flags(**some("rotations within_groups strided"))
    checks.check_seeds(**some("seed"))


def given_or(value: int | None, default: int) -> int:
    """The value, 0 included: what is wrong with it is said by whoever gets it."""
    return default if value is None else value
