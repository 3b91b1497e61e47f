"""A run given back: learner, parameters, config and samplers (`jm.load`)."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxmeta.cli import configs, recipes, session
from jaxmeta.cli.recipes import Recipe
from jaxmeta.cli.run import Run, open_run
from jaxmeta.training.evaluate import Report


class Loaded(NamedTuple):
    """What a run folder holds.

    learner: as it is tested. params, state: of the checkpoint that is tested. config: what
    was asked for. samplers: "train", "validation", "test" (None = there is none).
    """

    learner: Any
    params: Any
    state: Any
    config: dict[str, Any]
    samplers: dict[str, Any]
    run: Run
    recipe: Recipe

    @property
    def key(self) -> jax.Array:
        """Of the tasks of the run's own test."""
        return session.test_key(self.recipe.options.seed)

    def evaluate(
        self, num_tasks: int | None = None, seed: int | None = None, **other: Any
    ) -> Report:
        """The run's own test, to the same digits; or on other tasks.

        other: flags that are changed for it, e.g. inner_steps=10, shots=5, ways=20.
        Raises: ValueError for one that the run's parameters depend on.
        """
        learner, sampler, recipe = self.learner, self.samplers["test"], self.recipe
        if other:
            recipe = recipe.remade(**other)
            learner, sampler = recipe.test, recipe.samplers["test"]
        shapes = lambda m: jax.eval_shape(m.init, jax.random.key(0))
        if shapes(learner) != shapes(self.learner):
            raise ValueError(
                f"{self.run.folder}: its parameters have other shapes with "
                f"{', '.join(f'{n}={v}' for n, v in other.items())}; expected a value that "
                "they do not depend on"
            )
        options = recipe.options
        key = session.test_key(options.seed if seed is None else seed)
        number = num_tasks or options.test_tasks
        return recipe.source.judge(learner, self.params, sampler, options, number, key)


def load(folder: str | Path) -> Loaded:
    """Give back what `jaxmeta train` left in a folder.

    Nothing in the folder is executed: a config is numbers and words, a checkpoint arrays.

    Args: folder: of the run.
    Returns: a `Loaded`.
    Raises: FileNotFoundError if there is no run, ValueError if it can't be read or has no
        checkpoint.
    """
    run, config = open_run(folder)
    recipe = recipes.make(**configs.parts(config))
    state = jax.device_put(session.stored(run, recipe))
    return Loaded(
        recipe.test, state.params, state, config, recipe.samplers, run, recipe
    )
