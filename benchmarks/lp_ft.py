"""The head first, then everything: a network that was trained on printed letters is tuned
to five characters of Omniglot, by three plans.

    python benchmarks/lp_ft.py --root FOLDER
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import characters
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from report import device, save, table

import jaxmeta as jm
from jaxmeta.transfer import Stage

OUTER = optax.adam(1e-3)  # one object, one program for all seeds


@dataclass
class Config:
    """How long to train, on how many tasks to test. root: of Omniglot; None = letters."""

    root: Path | None = None
    width: int = 32
    steps: int = 2000
    tuning_steps: int = 50
    rates: tuple[float, ...] = (1e-4, 1e-3)
    shots: tuple[int, ...] = (1, 5, 15)
    test_tasks: int = 100
    tasks_at_once: int = 10
    seeds: int = 3

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(
            **{"width": 2, "steps": 2, "tuning_steps": 2, "rates": (1e-3,)},
            **{"shots": (1,), "test_tasks": 4, "tasks_at_once": 2, "seeds": 2},
        )


def run(key: jax.Array, config: Config) -> dict[str, list[dict]]:
    """Rows: shots, what moves, accuracy in % of each seed and half its 95 % interval over
    the tasks of all seeds; 5 ways."""
    letters, (_, unseen) = jm.data.glyphs(), characters.few_shot(config.root)
    model, ways_to_tune, found = network(config, 5), plans(config), {}
    for seed in jax.random.split(key, config.seeds):
        key_body, key_tasks = jax.random.split(seed)
        params = new_head(pretrained(key_body, letters, config), model)
        for shots in config.shots:
            test = jm.tasks.episodes(unseen, 5, shots, 5)
            tasks = jm.sample_tasks(
                test, jax.random.clone(key_tasks), config.test_tasks
            )
            for name, plan in ways_to_tune.items():
                judged = accuracies(
                    params, tasks, model=model, plan=plan, at_once=config.tasks_at_once
                )
                found.setdefault((shots, name), []).append(np.asarray(judged))
            found.setdefault((shots, "nearest pixels"), []).append(pixels(tasks))
    return {"rows": [row(s, name, np.array(a)) for (s, name), a in found.items()]}


def network(config: Config, outputs: int | None) -> jm.Model:
    """Conv4; its norms are of the batch at hand."""
    return jm.models.conv4(outputs, widths=config.width, strided=True)


def pretrained(key: jax.Array, letters: jm.data.Dataset, config: Config) -> dict:
    """The body of a classifier of all printed letters."""
    minibatches = jm.tasks.classes(letters, batch=64)
    classifier = jm.baseline(
        network(config, None), classes=minibatches.classes, features=config.width
    )
    state = jm.fit(classifier, minibatches, OUTER, steps=config.steps, key=key)
    return state.params.encoder


def new_head(body: dict, model: jm.Model) -> dict:
    """With a head of zeros, which does not prefer a class."""
    head = jax.eval_shape(model.init, jax.random.key(0))["head"]
    return body | {"head": jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), head)}


def plans(config: Config) -> dict[str, tuple[Stage, ...]]:
    """name -> plan; all take as many steps, LP-FT those of the other two."""
    steps, probe = config.tuning_steps, optax.adam(0.03)
    made: dict[str, tuple[Stage, ...]] = {
        "head": (Stage(jm.transfer.linear_probe(), probe, steps),)
    }
    for rate in config.rates:
        tuned = optax.adam(rate)
        made[f"everything, {rate:g}"] = (Stage(jm.transfer.full(), tuned, steps),)
        made[f"head, then everything, {rate:g}"] = jm.transfer.lp_ft(
            probe, tuned, steps=(steps, steps)
        )
    return made


@partial(jax.jit, static_argnames=("model", "plan", "at_once"))
def accuracies(params, tasks: jm.Task, *, model, plan, at_once) -> jax.Array:
    """[tasks] accuracy in % on the queries, after fine-tuning on the support set."""

    def one(task):
        tuned = jm.transfer.fine_tune(model, params, task.support, plan)
        right = jnp.argmax(model.apply(tuned, task.query.x), axis=1) == task.query.y
        return 100 * jnp.mean(right)

    return jax.lax.map(one, tasks, batch_size=at_once)


def pixels(tasks: jm.Task) -> np.ndarray:
    """[tasks] accuracy in % of the nearest neighbour."""
    nearest = jm.nearest_neighbour(ways=5)
    return 100 * jm.evaluate_episodes(nearest, (), tasks).per_task["accuracy"]


def row(shots: int, name: str, judged: np.ndarray) -> dict:
    """Numbers of a cell. judged: [seeds, tasks]."""
    ci95 = 1.96 * judged.std(ddof=1) / np.sqrt(judged.size)
    seeds = [float(mean) for mean in judged.mean(axis=1)]
    return {"shots": shots, "what moves": name, "accuracy": seeds, "ci95": float(ci95)}


def spelled(results: dict) -> list[dict]:
    """Rows of the table."""
    said = lambda r: f"{np.mean(r['accuracy']):.2f} ± {r['ci95']:.2f}"
    of_seeds = lambda r: f"{min(r['accuracy']):.2f} to {max(r['accuracy']):.2f}"
    return [
        {
            **{"shots": r["shots"], "what moves": r["what moves"]},
            **{"accuracy, %": said(r), "seeds": of_seeds(r)},
        }
        for r in results["rows"]
    ]


def main(config: Config) -> None:
    """Train, tune, print the table, keep the numbers."""
    results = run(jax.random.key(0), config)
    table(f"Printed letters to Omniglot, 5 ways, {device()}", spelled(results))
    print(save("lp_ft", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
