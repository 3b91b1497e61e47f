"""One run from start to end: train, test, draw; what `jaxmeta train` does."""

import json
from typing import Any

import jax
import optax

from jaxmeta.cli.recipes import Recipe
from jaxmeta.cli.run import Run
from jaxmeta.cli.sources.source import Headline
from jaxmeta.outer import MetaState, init_state
from jaxmeta.training import log as logs
from jaxmeta.training import plots
from jaxmeta.training.checkpoints import Checkpoints
from jaxmeta.training.evaluate import Report, evaluate
from jaxmeta.training.fit import fit

TRAIN_KEY, TEST_KEY = 0, 1  # what is folded into the key of the seed


def train(run: Run, recipe: Recipe, *, progress: bool = True) -> Report:
    """Train from the latest checkpoint (or from the start), then `test`."""
    options = recipe.options
    optimizer = optax.adam(options.learning_rate)
    checkpoints = Checkpoints(run.checkpoints)
    state = checkpoints.latest(fresh_state(recipe))
    start = 0 if state is None else int(state.step)
    assert options.steps and options.validate_every and options.save_every
    assert options.tasks_per_step
    log = logs.Log(run.metrics, options.steps if progress else None, start)
    with log:
        fit(
            recipe.train,
            recipe.samplers["train"],
            optimizer,
            steps=options.steps,
            key=jax.random.fold_in(jax.random.key(options.seed), TRAIN_KEY),
            tasks_per_step=options.tasks_per_step,
            tasks_at_once=options.tasks_at_once,
            chunk=options.chunk,
            state=state,
            validation=recipe.samplers["validation"],
            validation_learner=recipe.test,
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
    report = evaluate(recipe.test, state.params, sampler, num_tasks=num_tasks, key=key)
    headline = recipe.source.of(report)
    baseline = headline.baseline(sampler, num_tasks, key)
    _print(headline, report, baseline, int(state.step))
    if own:
        _write(run, report, baseline)
        _draw(run, recipe, state, headline, baseline, key)
    return report


def fresh_state(recipe: Recipe) -> MetaState:
    """The shapes of a run's state."""
    optimizer = optax.adam(recipe.options.learning_rate)
    return jax.eval_shape(
        lambda: init_state(recipe.train, optimizer, jax.random.key(0))
    )


def _print(headline: Headline, report: Report, baseline, step: int) -> None:
    print(
        f"meta-test after {step} steps, {report.num_tasks} unseen tasks, "
        f"{headline.title} with 95 % interval:"
    )
    for who, r in (("learned", report), baseline):
        value, interval = (
            headline.scale * x[headline.metric] for x in (r.mean, r.ci95)
        )
        print(f"  {who:<24} {value:.4f} ± {interval:.4f}{headline.unit}")
    if report.diverged:
        print(f"  {report.diverged} tasks diverged")


def _write(run: Run, report: Report, baseline) -> None:
    name, base = baseline
    content: dict[str, Any] = {
        "num_tasks": report.num_tasks,
        "diverged": report.diverged,
        "mean": report.mean,
        "ci95": report.ci95,
        "baseline": {"name": name, "mean": base.mean, "ci95": base.ci95},
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    run.report.write_text(json.dumps(content, indent=2) + "\n")


def _draw(run: Run, recipe: Recipe, state, headline: Headline, baseline, key) -> None:
    name, base = baseline
    reference = (f"{name}, test tasks", base.mean[headline.metric])
    lines = logs.read(run.metrics)
    plots.learning_curve(lines, run.curve, metric=headline.metric, reference=reference)
    task = jax.jit(recipe.samplers["test"].sample)(jax.random.fold_in(key, 0))
    adapted = jax.jit(recipe.test.adapt)(state.params, task.support)
    predict = jax.jit(recipe.test.predict)
    recipe.source.draw(task, lambda inputs: predict(adapted, inputs), run.episode)
