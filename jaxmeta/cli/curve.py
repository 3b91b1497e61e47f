"""A run's test along one number (`jaxmeta curve`)."""

from pathlib import Path

from jaxmeta import checks
from jaxmeta.cli import sweep
from jaxmeta.cli.listing import table
from jaxmeta.cli.loaded import load
from jaxmeta.training import plots
from jaxmeta.training.curves import Curve


def curve(folder: Path, over: str, num_tasks: int | None) -> None:
    """Test a run at several values of a flag; print a table, leave a picture beside it.

    Args: over: `name=value,value,...`, e.g. "inner-steps=0,1,5", "shots=1,5", "ways=5,20".
    Raises: ValueError for a flag that neither the learner nor a run has, or a value that
        the run's parameters do not fit.
    """
    if num_tasks is not None:
        checks.check_sizes(2, test_tasks=num_tasks)
    run = load(folder)
    points = sweep.points([over])
    ((name, _),) = points[0].items()
    sweep.check_names(run.recipe, points[0])
    reports = [run.evaluate(num_tasks, **point) for point in points]
    found = Curve(tuple(point[name] for point in points), tuple(reports))
    headline = run.recipe.source.of(reports[0])
    means, halves = (
        headline.scale * of(headline.metric) for of in (found.mean, found.ci95)
    )
    said = name.replace("_", " ")
    table(
        f"{headline.title} by {said}, mean and 95 % interval over "
        f"{reports[0].num_tasks} tasks",
        (said, headline.title),
        [
            (str(value), f"{mean:.4f} ± {half:.4f}{headline.unit}")
            for value, mean, half in zip(found.values, means, halves, strict=True)
        ],
    )
    picture = run.run.folder / f"by_{name}.png"
    plots.along(said, headline.title, found.values, means, halves, picture)
    print(picture)
