"""One run from start to end: train, test, draw; what `jaxmeta train` does."""

import json
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

from jaxmeta import keys
from jaxmeta.learners.metric.nearest_neighbour import nearest_neighbour
from jaxmeta.outer import MetaState, init_state
from jaxmeta.training import log as logs
from jaxmeta.training import plots
from jaxmeta.training.checkpoints import Checkpoints
from jaxmeta.training.evaluate import Report, evaluate, summarize
from jaxmeta.training.fit import fit
from jaxmeta.training.run import Run
from jaxmeta.types import Sampler

if TYPE_CHECKING:
    from jaxmeta.recipes import Recipe

TRAIN_KEY, TEST_KEY = 0, 1  # what is folded into the key of the seed


def train(run: Run, recipe: "Recipe", *, progress: bool = True) -> Report:
    """Train from the latest checkpoint (or from the start), then `test`."""
    options = recipe.options
    optimizer = optax.adam(options.learning_rate)
    checkpoints = Checkpoints(run.checkpoints)
    state = checkpoints.latest(fresh_state(recipe))
    start = 0 if state is None else int(state.step)
    assert options.steps and options.validate_every and options.save_every
    log = logs.Log(run.metrics, options.steps if progress else None, start)
    with log:
        state = fit(
            recipe.train,
            recipe.samplers["train"],
            optimizer,
            steps=options.steps,
            key=jax.random.fold_in(jax.random.key(options.seed), TRAIN_KEY),
            tasks_per_step=options.tasks_per_step or 4,
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
    run: Run, recipe: "Recipe", *, num_tasks: int | None = None, seed: int | None = None
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
    metric = _headline(report, recipe.samplers["test"])
    name, baseline = _baseline(recipe, num_tasks, key, metric)
    _print(metric, report, name, baseline, int(state.step))
    if own:
        _write(run, recipe, state, report, (name, baseline), key)
    return report


def fresh_state(recipe: "Recipe") -> MetaState:
    """The shapes of a run's state."""
    optimizer = optax.adam(recipe.options.learning_rate)
    return jax.eval_shape(
        lambda: init_state(recipe.train, optimizer, jax.random.key(0))
    )


def _headline(report: Report, sampler: Sampler) -> str:
    """The metric that a person asks for first, of those that a baseline has, too."""
    exact = hasattr(sampler, "exact_log_likelihood")
    wanted = ("accuracy", "log_likelihood" if exact else "mse", "loss")
    return next(m for m in wanted if m in report.mean)


def _baseline(recipe, num_tasks, key, metric) -> tuple[str, Report]:
    """Nearest neighbour on the same tasks; the exact process for its own functions."""
    sampler = recipe.samplers["test"]
    if metric == "log_likelihood":
        exact = jax.jit(jax.vmap(sampler.exact_log_likelihood))
        return "exact process (ceiling)", summarize(
            {metric: exact(keys.tasks(key, num_tasks))}
        )
    if recipe.source.problem == "classification":
        learner = nearest_neighbour(recipe.options.ways)
        name = "pixel nearest neighbour"
    else:
        learner, name = nearest_neighbour(None), "nearest neighbour in x"
    report = evaluate(learner, (), sampler, num_tasks=num_tasks, key=key)
    if metric == "mse":
        report = summarize({"mse": report.per_task["loss"]})
    return name, report


def _print(metric, report, name, baseline, step) -> None:
    scale, unit = (100, " %") if metric == "accuracy" else (1, "")
    title = f"{'mse' if metric == 'loss' else metric.replace('_', ' ')}"
    print(
        f"meta-test after {step} steps, {report.num_tasks} unseen tasks, {title} "
        "with 95 % interval:"
    )
    for who, r in (("learned", report), (name, baseline)):
        value, interval = scale * r.mean[metric], scale * r.ci95[metric]
        print(f"  {who:<24} {value:.4f} ± {interval:.4f}{unit}")
    if report.diverged:
        print(f"  {report.diverged} tasks diverged")


def _write(run, recipe, state, report, baseline, key) -> None:
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
    metric = _headline(report, recipe.samplers["test"])
    lines = logs.read(run.metrics)
    reference = (f"{name}, test tasks", base.mean[metric])
    plots.learning_curve(lines, run.curve, metric=metric, reference=reference)
    task = jax.jit(recipe.samplers["test"].sample)(jax.random.fold_in(key, 0))
    adapted = jax.jit(recipe.test.adapt)(state.params, task.support)
    predict = jax.jit(recipe.test.predict)
    if recipe.source.problem == "classification":
        plots.episode(task, predict(adapted, task.query.x), run.episode)
        return
    both = np.concatenate([task.support.x, task.query.x])
    x = np.linspace(both.min(), both.max(), 200, dtype=both.dtype)[:, None]
    outputs = predict(adapted, x)
    line = tuple(outputs) if isinstance(outputs, tuple) else outputs
    plots.curve(task, x, {"prediction": line}, run.episode)
