"""One run from start to end: train, test, draw; what `jaxmeta train` does."""

import contextlib
import signal
from dataclasses import replace
from functools import partial
from typing import Any

import jax

from jaxmeta import keys
from jaxmeta.cli import processes, summary
from jaxmeta.cli.interrupts import CODE, interruptible
from jaxmeta.cli.options import Options
from jaxmeta.cli.recipes import Recipe
from jaxmeta.cli.run import Run, to_json, written
from jaxmeta.cli.sources.source import Headline
from jaxmeta.metrics import ByClass, by_class
from jaxmeta.training import log as logs
from jaxmeta.training import plots
from jaxmeta.training.best import Best
from jaxmeta.training.checkpoints import Checkpoints
from jaxmeta.training.evaluate import Report, evaluate
from jaxmeta.training.fit import due, fit

TRAIN_KEY, TEST_KEY = 0, 1  # what is folded into the key of the seed
SAVE_SECONDS = 60.0  # of training that a crash may cost


def train_key(seed: int) -> jax.Array:
    """Of all that is random in training."""
    return jax.random.fold_in(jax.random.key(seed), TRAIN_KEY)


def test_key(seed: int) -> jax.Array:
    """Of the tasks of a test."""
    return jax.random.fold_in(jax.random.key(seed), TEST_KEY)


class InterruptedRunError(Exception):
    """A run that was stopped, and saved where it stood.

    code: what the process exits with. SIGTERM to one of a cluster's is a notice that its
        machine is taken away, which the run was ready for.
    """

    def __init__(self, said: str, asked: int):
        super().__init__(said)
        noticed = asked == signal.SIGTERM and processes.are_joined()
        self.code = 0 if noticed else CODE


def train(
    run: Run, recipe: Recipe, *, progress: bool = True, tensorboard: bool = False
) -> Report:
    """Train from the latest checkpoint (or from the start), then `test`.

    Raises: InterruptedRunError if a signal stops it; BlockingIOError if another process
        trains it.
    """
    go_on = f"go on with: jaxmeta train --resume {run.folder}"
    first = processes.is_first()
    with run.writing() if first else contextlib.nullcontext():
        log = _log(run, recipe, progress, tensorboard) if first else _silent
        with interruptible(go_on) as signals:

            def asked():  # of several processes all stop at one step, for one reason
                return processes.largest_of(signals.asked)

            state = trained(run, recipe, log, lambda: bool(asked()))
            why = asked()
        if int(state.step) < (recipe.options.steps or 0) and why:
            raise InterruptedRunError(
                f"stopped at step {int(state.step)}, all saved; {go_on}", why
            )
        report = test(run, recipe, write=first)
    print(f"run folder: {run.folder}")
    return report


def _log(run: Run, recipe: Recipe, progress: bool, tensorboard: bool):
    """Step -> the log of a run that goes on from there."""
    steps = recipe.options.steps if progress else None
    board = run.folder / "tensorboard" if tensorboard else None
    return lambda start: logs.Log(
        run.metrics, steps, start, lines=True, tensorboard=board
    )


def _silent(start: int) -> logs.Log:
    """The log of a process that does not write."""
    return logs.Log(None, None, start)


def done(run: Run) -> int:
    """Meta-steps that a run has done, by what it tells."""
    return max((int(line["step"]) for line in logs.read(run.metrics)), default=0)


def trained(run: Run, recipe: Recipe, log_from, stop) -> Any:
    """The state after training, which is saved."""
    options = recipe.options
    assert options.steps and options.validate_every and options.save_every
    about = recipe.about
    checkpoints = Checkpoints(run.checkpoints, about=about)
    state = checkpoints.latest(fresh_state(recipe))
    start = 0 if state is None else int(state.step)
    validation = recipe.samplers["validation"]
    best_ones = Checkpoints(run.best, keep=1, about=about) if validation else None
    best = None if best_ones is None else _best(run, recipe, best_ones, start)
    key = train_key(options.seed)
    missed = best is not None and _missed(run, options, start)
    processes.largest_of(0)  # all have read the log before the first writes to it
    with log_from(start) as log:
        if best is not None and missed:
            _validate(recipe, state, key, best, log)
        if state is not None and best is not None and best.over:
            print(
                f"training had ended at step {start}: no better validation since step "
                f"{best.step}; begin another run with --config and more --patience"
            )
        else:
            state = fit(
                recipe.outer,
                recipe.samplers["train"],
                steps=options.steps,
                key=key,
                chunk=options.chunk,
                state=state,
                validation=validation,
                validation_learner=validation and recipe.test,
                validate_every=options.validate_every,
                validation_tasks=options.validation_tasks,
                best=best,
                log=log,
                save=checkpoints.save,
                save_every=options.save_every,
                # clocks differ, and processes save together or not at all
                save_seconds=None if jax.process_count() > 1 else SAVE_SECONDS,
                stop=stop,
            )
    for kept in (checkpoints, best_ones):
        if kept is not None:
            kept.close()
    return state


def _best(run: Run, recipe: Recipe, kept: Checkpoints, start: int) -> Best:
    """What keeps the best state by validation, with all that was validated before."""
    metrics = tuple(h.metric for h in recipe.source.headline)

    def keep(state):  # on the disk before a line says that it was the best
        kept.save(state)
        kept.wait()

    best = Best(metrics, recipe.options.patience, keep=keep)
    for line in logs.read(run.metrics) if start else ():
        name = next((m for m in metrics if f"validation_{m}" in line), None)
        if name is not None and line["step"] <= start:
            best.told(name, line[f"validation_{name}"], int(line["step"]))
    return best


def _missed(run: Run, options: Options, start: int) -> bool:
    """Whether a run was killed after it saved and before it validated."""
    assert options.steps and options.validate_every
    size = min(options.chunk, start)
    if not start or not due(start, size, options.validate_every, options.steps):
        return False
    lines = [line for line in logs.read(run.metrics) if line["step"] == start]
    return not any(name.startswith("validation_") for line in lines for name in line)


def _validate(recipe: Recipe, state, key, best: Best, log: logs.Log) -> None:
    """As `fit` does it."""
    report = evaluate(
        recipe.test,
        state.params,
        recipe.samplers["validation"],
        num_tasks=recipe.options.validation_tasks,
        key=keys.validation(key),
        mesh=recipe.outer.mesh,
    )
    best.look(state, report)
    log.validation(int(state.step), report)


def test(
    run: Run,
    recipe: Recipe,
    *,
    num_tasks: int | None = None,
    seed: int | None = None,
    write: bool,
) -> Report:
    """Meta-test a checkpoint beside the baseline, on the devices that the recipe has;
    print the numbers.

    Args: run, recipe; num_tasks, seed: if not the run's own; write: leave reports and
        pictures in the run folder, if the tasks are its own.
    Raises: ValueError if the run has no checkpoint.
    """
    options, sampler = recipe.options, recipe.samplers["test"]
    state = stored(run, recipe)
    own = num_tasks is None and seed is None
    num_tasks = num_tasks or options.test_tasks
    key = test_key(options.seed if seed is None else seed)
    judge = partial(recipe.source.judge, recipe.test, state.params, sampler, options)
    report = judge(num_tasks, key, mesh=recipe.outer.mesh)
    headline = recipe.source.of(report)
    reports = {"learned": report}
    if processes.is_first():  # who prints
        reports |= headline.baselines(sampler, options, num_tasks, key)
    _print(headline, reports, int(state.step))
    if own and write:
        classes = _classes(recipe, state.params, num_tasks, key)
        _write(run, recipe, headline, reports, int(state.step), classes)
        if classes is not None:
            few = classes.hardest(30)
            plots.confusion(few.confusion, few.names, run.confusion)
        _draw(run, recipe, state, headline, reports, key)
    return report


def stored(run: Run, recipe: Recipe) -> Any:
    """The state that a run is tested with. Raises: ValueError if there is none."""
    best = recipe.options.tested == "best"
    folder = run.best if best else run.checkpoints
    state = None
    if folder.exists():
        kept = Checkpoints(folder, about=recipe.about, reading=True)
        state = kept.latest(fresh_state(recipe))
        kept.close()
    if state is None and best:
        print("no validation was the best: the last state is tested")
        last = replace(recipe, options=replace(recipe.options, tested="last"))
        return stored(run, last)
    if state is None:
        raise ValueError(
            f"{run.folder} has no checkpoint yet; go on with it: "
            f"jaxmeta train --resume {run.folder}"
        )
    return state


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


def _classes(recipe: Recipe, params, num_tasks: int, key) -> ByClass | None:
    """What became of each class of the test, if they have names."""
    sampler = recipe.samplers["test"]
    names = getattr(sampler, "names", ())
    if not names:
        return None
    how = {"num_tasks": num_tasks, "key": jax.random.clone(key)}
    return by_class(recipe.test, params, sampler, names, **how)


def _write(
    run: Run, recipe: Recipe, headline: Headline, reports, step: int, classes
) -> None:
    said = lambda report: {"mean": report.mean, "ci95": report.ci95}
    report = reports["learned"]
    content: dict[str, Any] = {
        "num_tasks": report.num_tasks,
        "diverged": report.diverged,
        "step": step,
        **said(report),
        "baselines": {n: said(r) for n, r in reports.items() if r is not report},
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    if classes is not None:
        columns = classes._asdict()
        names = columns.pop("names")
        del columns["confusion"]
        content["classes"] = {
            name: {c: float(values[i]) for c, values in columns.items()}
            for i, name in enumerate(names)
        }
    written(run.report, to_json(content))
    page = summary.markdown(run, recipe, headline, reports, step, classes)
    written(run.summary, page)


def _draw(run: Run, recipe: Recipe, state, headline: Headline, reports, key) -> None:
    metric = headline.curve or headline.metric
    references = {
        f"{name}, test tasks": report.mean[metric]
        for name, report in reports.items()
        if name != "learned"
    }
    lines = logs.read(run.metrics)
    report = reports["learned"]
    tested = int(state.step), report.mean[metric], report.ci95[metric]
    how = {"metric": metric, "references": references, "tested": tested}
    plots.learning_curve(lines, run.curve, **how)
    sampler = recipe.samplers["test"]
    recipe.source.picture(
        *(recipe.test, state.params, sampler, key, reports, run.episode),
        unadapted=recipe.unadapted if recipe.source.same_curve else None,
    )
