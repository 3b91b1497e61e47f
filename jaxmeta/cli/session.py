"""One run from start to end: train, test, draw; what `jaxmeta train` does."""

import json
from typing import Any

import jax

from jaxmeta.cli.recipes import Recipe
from jaxmeta.cli.run import Run
from jaxmeta.cli.sources.source import Headline
from jaxmeta.training import log as logs
from jaxmeta.training import plots
from jaxmeta.training.checkpoints import Checkpoints
from jaxmeta.training.evaluate import Report
from jaxmeta.training.fit import fit

TRAIN_KEY, TEST_KEY = 0, 1  # what is folded into the key of the seed


def train(run: Run, recipe: Recipe, *, progress: bool = True) -> Report:
    """Train from the latest checkpoint (or from the start), then `test`."""
    options = recipe.options
    checkpoints = Checkpoints(run.checkpoints)
    state = checkpoints.latest(fresh_state(recipe))
    start = 0 if state is None else int(state.step)
    assert options.steps and options.validate_every and options.save_every
    log = logs.Log(run.metrics, options.steps if progress else None, start)
    with log:
        fit(
            recipe.outer,
            recipe.samplers["train"],
            steps=options.steps,
            key=jax.random.fold_in(jax.random.key(options.seed), TRAIN_KEY),
            chunk=options.chunk,
            state=state,
            validation=recipe.samplers["validation"],
            validation_learner=recipe.samplers["validation"] and recipe.test,
            validate_every=options.validate_every,
            validation_tasks=options.validation_tasks,
            log=log,
            save=checkpoints.save,
            save_every=options.save_every,
        )
    checkpoints.close()
    report = test(run, recipe)
    print(f"run folder: {run.folder}")
    return report


def test(
    run: Run, recipe: Recipe, *, num_tasks: int | None = None, seed: int | None = None
) -> Report:
    """Meta-test the latest checkpoint beside the baseline; write report and pictures.

    With other than the run's own tasks only the numbers are printed.
    Raises: ValueError if the run has no checkpoint.
    """
    options, sampler = recipe.options, recipe.samplers["test"]
    checkpoints = Checkpoints(run.checkpoints)
    state = checkpoints.latest(fresh_state(recipe))
    checkpoints.close()
    if state is None:
        raise ValueError(
            f"{run.folder} has no checkpoint yet; go on with it: "
            f"jaxmeta train --resume {run.folder}"
        )
    own = num_tasks is None and seed is None
    num_tasks = num_tasks or options.test_tasks
    key_seed = jax.random.key(options.seed if seed is None else seed)
    key = jax.random.fold_in(key_seed, TEST_KEY)
    judge = recipe.source.judge
    report = judge(recipe.test, state.params, sampler, options, num_tasks, key)
    headline = recipe.source.of(report)
    reports = {"learned": report}
    reports |= headline.baselines(sampler, options, num_tasks, key)
    _print(headline, reports, int(state.step))
    if own:
        _write(run, reports)
        _draw(run, recipe, state, headline, reports, key)
    return report


def fresh_state(recipe: Recipe) -> Any:
    """The shapes of a run's state."""
    return jax.eval_shape(recipe.outer.init, jax.random.key(0))


def _print(headline: Headline, reports: dict[str, Report], step: int) -> None:
    report = reports["learned"]
    print(
        f"meta-test after {step} steps, {report.num_tasks} unseen tasks, "
        f"{headline.title} with 95 % interval:"
    )
    for who, r in reports.items():
        value, interval = (
            headline.scale * x[headline.metric] for x in (r.mean, r.ci95)
        )
        print(f"  {who:<24} {value:.4f} ± {interval:.4f}{headline.unit}")
    if report.diverged:
        print(f"  {report.diverged} tasks diverged")


def _write(run: Run, reports: dict[str, Report]) -> None:
    said = lambda report: {"mean": report.mean, "ci95": report.ci95}
    report = reports["learned"]
    content: dict[str, Any] = {
        "num_tasks": report.num_tasks,
        "diverged": report.diverged,
        **said(report),
        "baselines": {n: said(r) for n, r in reports.items() if r is not report},
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    run.report.write_text(json.dumps(content, indent=2) + "\n")


def _draw(run: Run, recipe: Recipe, state, headline: Headline, reports, key) -> None:
    metric = headline.curve or headline.metric
    references = {
        f"{name}, test tasks": report.mean[metric]
        for name, report in reports.items()
        if name != "learned"
    }
    lines = logs.read(run.metrics)
    plots.learning_curve(lines, run.curve, metric=metric, references=references)
    sampler = recipe.samplers["test"]
    recipe.source.picture(recipe.test, state.params, sampler, key, reports, run.episode)
