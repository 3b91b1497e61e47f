"""What problems of images in classes share: samplers, headline, picture."""

from pathlib import Path

from jaxmeta import tasks
from jaxmeta.cli.options import Options, given_or
from jaxmeta.cli.sources.source import Headline, Known, Predict, nearest
from jaxmeta.data import Dataset
from jaxmeta.training import plots
from jaxmeta.types import Sampler, Task

BATCH = 16  # examples of a task, for learners that train on minibatches of all classes
HEADLINE = (
    Headline(
        "accuracy",
        "accuracy",
        nearest("pixel nearest neighbour", "accuracy", ways=True),
        scale=100,
        unit=" %",
    ),
)
OPTIONS = (
    *("train_ways", "shots", "queries", "rotations", "jitter", "within_groups"),
    *("unlabelled", "distractors"),
)
DEFAULTS = {
    **{"shots": 1, "queries": 5, "steps": 4000, "tasks_per_step": 4},
    **{"model": "conv4", "width": 64, "unlabelled": 2},
}


def samplers(options: Options, train, validation, test) -> dict[str, Sampler]:
    """Episodes of three data sets, and minibatches of the first."""
    change = {"rotations": bool(options.rotations), "jitter": options.jitter or 0.0}

    def sampler(dataset, ways, within_groups=False):
        return tasks.episodes(
            dataset,
            ways,
            given_or(options.shots, 1),
            given_or(options.queries, 1),
            within_groups=within_groups,
            unlabelled=given_or(options.unlabelled, 0),
            distractors=options.distractors,
            **change,
        )

    return {
        "episodes": sampler(train, options.train_ways or options.ways),
        "classes": tasks.classes(train, BATCH, **change),
        "validation": sampler(validation, options.ways, options.within_groups),
        "test": sampler(test, options.ways, options.within_groups),
    }


def shares(dataset: Dataset, seed: int) -> dict[str, Dataset]:
    """The classes of a data set without published splits, divided by a seed."""
    return dataset.splits(seed=seed, train=0.6, validation=0.2, test=0.2)


def draw(task: Task, predict: Predict, path: Path, known: Known) -> None:
    """The picture of an episode."""
    plots.episode(task, predict(task.query.x), path, known.names)
