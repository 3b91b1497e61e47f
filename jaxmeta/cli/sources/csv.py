"""A table of the user's: rows of numbers, a class in the column `label`."""

from pathlib import Path

from jaxmeta import data
from jaxmeta.cli.options import Options
from jaxmeta.cli.sources import images
from jaxmeta.cli.sources.source import Headline, Known, Predict, nearest, source
from jaxmeta.training import plots
from jaxmeta.types import Sampler, Task


def _samplers(options: Options) -> dict[str, Sampler]:
    if options.root is None:
        raise ValueError(
            "csv: expected --root, a CSV file with columns of numbers and a column label, "
            "the class of each row"
        )
    parts = images.shares(data.from_csv(options.root), options.seed)
    return images.samplers(options, *parts.values())


def _draw(task: Task, predict: Predict, path: Path, known: Known) -> None:
    plots.plane(task, predict(task.query.x), path, known.names)


source(
    name="csv",
    description="rows of numbers in a CSV file, their class in its column label, split by "
    "--seed; needs --root",
    kind="classification",
    samplers=_samplers,
    headline=(
        Headline(
            "accuracy",
            "accuracy",
            nearest("nearest neighbour", "accuracy", ways=True),
            scale=100,
            unit=" %",
        ),
    ),
    draw=_draw,
    defaults=images.DEFAULTS | {"model": "mlp"},
    default_learner="protonet",
    options=(
        *(
            o
            for o in images.OPTIONS
            if o not in ("rotations", "jitter", "within_groups")
        ),
        "root",
    ),
)
