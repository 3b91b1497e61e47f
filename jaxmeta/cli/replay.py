"""The tasks of one meta-step of a run, again (`jaxmeta replay`)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from jaxmeta import keys
from jaxmeta.cli import configs, recipes, session
from jaxmeta.cli.listing import table
from jaxmeta.cli.recipes import Recipe
from jaxmeta.cli.run import Run, open_run
from jaxmeta.outer import objective_of, sample_tasks
from jaxmeta.task_axis import finite, over_tasks
from jaxmeta.training.checkpoints import Checkpoints
from jaxmeta.training.fit import fit


def replay(folder: Path, step: int) -> None:
    """Print loss and gradient of each task of a meta-step, counted from 0.

    It trains again, bit for bit, from the newest checkpoint that is not beyond that step,
    or from the start.
    Raises: ValueError for a step that the run did not do, or a run without tasks to sample.
    """
    run, config = open_run(folder)
    recipe = recipes.make(**configs.parts(config))
    steps = session.done(run)
    if not 0 <= step < steps:
        raise ValueError(
            f"step: the run has done {steps}, from 0 to {steps - 1}; got {step}"
        )
    if recipe.samplers["train"] is None or recipe.outer.learner is None:
        raise ValueError(
            f"run: {recipe.options.data} is acted in, and its tasks are drawn by what "
            "learns; expected a run on tasks of examples"
        )
    state = _state_before(run, recipe, step)
    rows, bad = _tasks(recipe, state, step)
    table(
        f"the {len(rows)} tasks of step {step}, seed {recipe.options.seed}",
        ("task", "loss", "length of the gradient", "finite"),
        rows,
    )
    said = f"not finite: {', '.join(map(str, bad))}" if bad else "all are finite"
    print(f"{said}; task i of it is sampler.sample(jax.random.fold_in(key, i)), with")
    print(_how(recipe, step))


def _state_before(run: Run, recipe: Recipe, step: int):
    """The state before a step: restored, and trained up to it."""
    key = session.train_key(recipe.options.seed)
    state = None
    if run.checkpoints.exists():
        kept = Checkpoints(run.checkpoints, about=recipe.about, reading=True)
        state = kept.latest(session.fresh_state(recipe), before=step + 1)
        kept.close()
    if state is None:
        state = recipe.outer.init(keys.init(key))
    if int(state.step) == step:
        return state
    print(f"training from step {int(state.step)} to step {step} again", flush=True)
    sampler = recipe.samplers["train"]
    return fit(recipe.outer, sampler, steps=step, key=key, state=state)


def _tasks(recipe: Recipe, state, step: int):
    """Rows of the tasks, and the numbers of those that are not finite."""
    key = keys.data(session.train_key(recipe.options.seed))
    key_tasks, key_loss = keys.parts(keys.step(key, step))
    number = recipe.options.tasks_per_step or 1
    tasks = jax.jit(lambda k: sample_tasks(recipe.samplers["train"], k, number))(
        key_tasks
    )
    one, now = objective_of(recipe.train), jnp.asarray(step)

    @jax.jit
    def judged(params, tasks, own):
        slope = jax.value_and_grad(lambda p, t, k: one(p, t, k, now)[0])

        def of(task, key):
            value, gradient = slope(params, task, key)
            return value, optax.tree.norm(gradient), finite((value, gradient))

        return over_tasks(of, 1)(tasks, own)

    own = keys.tasks(key_loss, number)
    value, norm, fine = map(jnp.asarray, judged(state.params, tasks, own))
    rows = [
        (str(i), f"{v:.6g}", f"{n:.6g}", "yes" if f else "no")
        for i, (v, n, f) in enumerate(zip(value, norm, fine, strict=True))
    ]
    return rows, [i for i, f in enumerate(fine.tolist()) if not f]


def _how(recipe: Recipe, step: int) -> str:
    return (
        f"  key = jax.random.key({recipe.options.seed})\n"
        f"  for number in ({session.TRAIN_KEY}, {keys.DATA}, {step}): "
        "key = jax.random.fold_in(key, number)\n"
        "  key, _ = jax.random.split(key)"
    )
