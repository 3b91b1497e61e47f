"""A grid of runs in one process (`jaxmeta sweep`).

Runs that differ by seeds and by rates only are one population: one compiled program.
"""

import itertools
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxmeta import learners
from jaxmeta.cli import session
from jaxmeta.cli.listing import table
from jaxmeta.cli.options import Options
from jaxmeta.cli.recipes import Recipe
from jaxmeta.cli.run import to_json, written
from jaxmeta.cli.sources.source import Headline
from jaxmeta.training.evaluate import Report
from jaxmeta.training.fit import fit
from jaxmeta.training.pooled import pooled
from jaxmeta.training.population import population

Point = dict[str, Any]  # a value for each name that is swept
Row = tuple[Point, list, dict[str, Report]]  # values, seeds, reports


def points(over: Sequence[str]) -> list[Point]:
    """All combinations of `name=value,value,...`.

    Raises: ValueError for another form, a name twice, or no value.

    >>> points(["seed=0,1", "inner-lr=0.1"])
    [{'seed': 0, 'inner_lr': 0.1}, {'seed': 1, 'inner_lr': 0.1}]
    """
    values: dict[str, list] = {}
    for given in over:
        name, equals, listed = given.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not listed or not name:
            raise ValueError(f"over: expected name=value,value,..., got {given!r}")
        if name in values:
            raise ValueError(f"over: {name} is given twice")
        values[name] = [_value(word) for word in listed.split(",")]
        if len({*map(repr, values[name])}) < len(values[name]):
            raise ValueError(f"over: {name} has a value twice, got {listed}")
    if not values:
        raise ValueError("over: expected at least one name=value,value,...")
    return [
        dict(zip(values, one, strict=True))
        for one in itertools.product(*values.values())
    ]


def sweep(recipe: Recipe, over: Sequence[str], out: Path) -> None:
    """Train and test each point, print them from the best to the worst by validation.

    Raises: ValueError for a name that neither the learner nor a run has.
    """
    grid, options = points(over), recipe.options
    if options.patience is not None or options.tested != "last":
        raise ValueError(
            "patience, tested: nothing is validated while a sweep trains; leave them out"
        )
    check_names(recipe, grid[0])
    made = [recipe.remade(**point) for point in grid]  # what is wrong is said before
    if out.exists():
        raise FileExistsError(
            f"{out} exists; nothing was changed. Choose another --out"
        )
    out.mkdir(parents=True)
    results: dict[int, dict[str, Report]] = {}
    for together in _groups(grid, made):
        print(f"training {len(together)} of {len(grid)} runs", flush=True)
        states = _trained([grid[i] for i in together], [made[i] for i in together])
        for i, params in zip(together, states, strict=True):
            results[i] = _judged(made[i], params)
        headline = recipe.source.of(results[0]["test"])
        rows = _rows(grid, results, headline)  # kept, should a later group fail
        content = {"about": recipe.about, "rows": [_spelled(*row) for row in rows]}
        written(out / "sweep.json", to_json(content))
    _tell(headline, rows, out)


def _value(word: str) -> Any:
    """A number, true, false, or the word."""
    try:
        return json.loads(word.strip().lower())
    except ValueError:
        return word.strip()


def check_names(recipe: Recipe, point: Point) -> None:
    """Raise ValueError for a name that neither the learner nor a run has."""
    own = learners.get(recipe.about["learner"]).defaults
    options = Options.__dataclass_fields__
    for name in point:
        if name in ("data", "patience", "tested"):
            raise ValueError(
                f"over: {name} can't be swept; sweep with each value, then compare"
            )
        if name not in own and name not in options:
            raise ValueError(
                f"over: {name} is no flag of this learner; expected some of "
                f"{', '.join([*own, *options])}"
            )


def _rates(recipe: Recipe, point: Point) -> Point:
    """What may differ between members of a population: the outer rate, and the learner's
    own numbers with a fraction."""
    own = {*learners.get(recipe.about["learner"]).defaults, "learning_rate"}
    return {n: v for n, v in point.items() if isinstance(v, float) and n in own}


def _groups(grid: list[Point], made: list[Recipe]) -> list[list[int]]:
    """The runs that are trained together."""
    groups: dict[str, list[int]] = {}
    for i, (point, recipe) in enumerate(zip(grid, made, strict=True)):
        apart = {*_rates(recipe, point), "seed"}
        rest = {n: v for n, v in point.items() if n not in apart}
        together = groups.setdefault(repr(rest), [])
        alone = recipe.outer.learner is None
        if together and (alone or not _same_data(made[together[0]], recipe)):
            together = groups.setdefault(repr((rest, i)), [])
        together.append(i)
    return list(groups.values())


def _same_data(a: Recipe, b: Recipe) -> bool:
    """Whether another seed does not mean other data."""
    (x, of_x), (y, of_y) = (jax.tree.flatten(r.samplers["train"]) for r in (a, b))
    return of_x == of_y and all(map(np.array_equal, x, y))


def _trained(grid: list[Point], made: list[Recipe]) -> list[Any]:
    """The parameters of each."""
    first = made[0]
    options = first.options
    how = {"steps": options.steps, "chunk": options.chunk}
    keys = [session.train_key(recipe.options.seed) for recipe in made]
    sampler = first.samplers["train"]
    if len(made) == 1:
        return [fit(first.outer, sampler, key=keys[0], **how).params]
    names = list(_rates(first, grid[0]))
    swept = {name: [float(point[name]) for point in grid] for name in names}
    # a population has at least one number that differs: the meta-rate, if no other
    swept.setdefault("learning_rate", [r.options.learning_rate for r in made])
    outer = population(
        partial(_member, first),
        len(made),
        tasks_per_step=options.tasks_per_step or 1,
        tasks_at_once=options.tasks_at_once,
        **swept,
    )
    state = fit(outer, sampler, key=jax.numpy.stack(keys), **how)
    return [jax.tree.map(lambda a, i=i: a[i], state.params) for i in range(len(made))]


def _member(recipe: Recipe, *, learning_rate, **arguments):
    """(learner, optimiser) of some rates."""
    return recipe.with_arguments(**arguments), optax.adam(learning_rate)


def _judged(recipe: Recipe, params) -> dict[str, Report]:
    """Reports of validation (None if there is none) and test."""
    options, found = recipe.options, {}
    for name, number in (
        ("validation", options.validation_tasks),
        ("test", options.test_tasks),
    ):
        if recipe.samplers[name] is not None:
            judge = partial(recipe.source.judge, recipe.test, params)
            key = session.test_key(options.seed)
            key = jax.random.fold_in(key, 1) if name == "validation" else key
            found[name] = judge(recipe.samplers[name], options, number, key)
    return found


def _rows(grid: list[Point], results, headline: Headline) -> list[Row]:
    """From the best to the worst, by validation where there is one; seeds of one point in
    one row."""
    groups: dict[str, list[int]] = {}
    for i in sorted(results):
        rest = {n: v for n, v in grid[i].items() if n != "seed"}
        groups.setdefault(repr(rest), []).append(i)
    rows = []
    for same in groups.values():
        of = lambda name, same=same: [results[i][name] for i in same]
        reports = {
            name: pooled(of(name)) if len(same) > 1 else of(name)[0]
            for name in results[same[0]]
        }
        point = {n: v for n, v in grid[same[0]].items() if n != "seed"}
        rows.append((point, [grid[i].get("seed") for i in same], reports))
    sign = 1 if headline.lower else -1
    worth = lambda row: sign * next(iter(row[2].values())).mean[headline.metric]
    return sorted(rows, key=lambda row: (np.isnan(worth(row)), worth(row)))


def _spelled(point: Point, seeds: list, reports: dict[str, Report]) -> dict[str, Any]:
    """A row as it is kept."""
    said = {n: {"mean": r.mean, "ci95": r.ci95} for n, r in reports.items()}
    return {"values": point, "seeds": seeds, **said}


def _tell(headline: Headline, rows: list[Row], out: Path) -> None:
    """The table."""
    metric, scale = headline.metric, headline.scale
    said = lambda r: (
        f"{scale * r.mean[metric]:.4f} ± {scale * r.ci95[metric]:.4f}{headline.unit}"
    )
    table(
        f"{headline.title}, the best first by {next(iter(rows[0][2]))}; "
        f"{out / 'sweep.json'}",
        (*rows[0][0], "seeds", *rows[0][2]),
        [
            (*map(str, point.values()), str(len(seeds)), *map(said, reports.values()))
            for point, seeds, reports in rows
        ],
    )
