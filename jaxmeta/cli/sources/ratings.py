"""The user's files of MovieLens: a task is a user, to predict is what they will think."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmeta import data, tasks
from jaxmeta.cli.networks import FlagNetworks
from jaxmeta.cli.options import Options, given_or
from jaxmeta.cli.sources.source import Headline, Known, Predict, Reports, Source, source
from jaxmeta.learners.recommendation import item_mean, item_means
from jaxmeta.learners.registry import Facts
from jaxmeta.tasks import Users
from jaxmeta.training import plots
from jaxmeta.training.evaluate import evaluate
from jaxmeta.types import Task


def _samplers(options: Options) -> dict[str, Users]:
    """Users that are trained on, 80 %, and two times 10 % of others."""
    if options.root is None:
        raise ValueError(
            "ratings: expected --root, a folder with the files of MovieLens-1M (users.dat, "
            "movies.dat, ratings.dat) or of MovieLens-100K (u.user, u.item, u.data)"
        )
    everyone = tasks.users(
        data.ratings(options.root, most=100), given_or(options.queries, 10)
    )
    number = len(everyone.planner.counts)
    order = np.random.default_rng(options.seed).permutation(number)
    ends = np.round(np.array([0.8, 0.9]) * number).astype(int)
    parts = zip(("episodes", "validation", "test"), np.split(order, ends), strict=True)
    return {name: everyone.select(part) for name, part in parts}


def _means(sampler: Users, options: Options, num_tasks: int, key: jax.Array) -> Reports:
    """The mean of an item over the users that are trained on, and a user's bias."""
    (known,) = _samplers(options)["episodes"].everything()
    params = item_means(known.x["item"], known.y, sampler.items)
    how: dict[str, Any] = {"num_tasks": num_tasks, "key": key}
    named = {"item mean": None, "item mean and user bias": 3.0}
    return {
        name: evaluate(
            item_mean(items=sampler.items, user_shrinkage=s), params, sampler, **how
        )
        for name, s in named.items()
    }


def _draw(task: Task, predict: Predict, path: Path, known: Known) -> None:
    del known
    plots.ratings(np.asarray(task.query.y), np.asarray(predict(task.query.x)), path)


@dataclass(frozen=True)
class Ratings(Source):
    """A source whose inputs are dicts of user and item."""

    def networks(self, facts: Facts, sampler: Any, options: Options) -> FlagNetworks:
        """Embeddings have no shape of an input."""
        return FlagNetworks.of(options, facts, (facts.x_dims,))


source(
    Ratings,
    name="ratings",
    description="users and the films they rated, MovieLens-1M or -100K, split by --seed; "
    "needs --root",
    kind="recommendation",
    samplers=_samplers,
    headline=(Headline("mae", "absolute error", _means, unit=" stars"),),
    draw=_draw,
    defaults={
        **{"queries": 10, "steps": 1000, "tasks_per_step": 8},
        **{"model": "mlp", "width": 32},
    },
    default_learner="melu",
    options=("queries", "root"),
    learner={"inner_lr": 0.02, "inner_steps": 3},
)
