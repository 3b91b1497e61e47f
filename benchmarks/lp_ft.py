"""The head first, then everything: a network that was trained on printed letters is tuned
to five characters of Omniglot, by three plans, each at its best.

    python benchmarks/lp_ft.py --root FOLDER
"""

from collections.abc import Callable
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
    """How long to train, what to choose from, on how many tasks to test.

    root: of Omniglot; None = letters. heads: rates of the head alone. rates: of everything.
    probes: steps of the head before everything, at the rate `probe`.
    """

    root: Path | None = None
    width: int = 32
    steps: int = 2000
    tuning_steps: int = 50
    heads: tuple[float, ...] = (0.01, 0.03, 0.1)
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    probes: tuple[int, ...] = (3, 10, 50)
    probe: float = 0.03
    shots: tuple[int, ...] = (1, 5, 15)
    validation_tasks: int = 40
    test_tasks: int = 100
    tasks_at_once: int = 10
    seeds: int = 3

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        one = cls(heads=(0.03,), rates=(1e-3,), probes=(1,), shots=(1,), seeds=2)
        one.width = one.steps = one.tuning_steps = 2
        one.validation_tasks = one.test_tasks = 4
        one.tasks_at_once = 2
        return one


def run(key: jax.Array, config: Config) -> dict[str, list[dict]]:
    """Rows: shots, what moves, how, accuracy in % of each seed and half its 95 % interval
    over the tasks of all seeds; 5 ways. How is chosen by the first seed's network, on
    characters that the test has not."""
    letters, (seen, unseen) = jm.data.glyphs(), characters.few_shot(config.root)
    model, how, found = network(config, 5), {}, {}
    judge = partial(accuracies, model=model, at_once=config.tasks_at_once)
    for seed in jax.random.split(key, config.seeds):
        key_body, key_tasks, key_choice = jax.random.split(seed, 3)
        params = new_head(pretrained(key_body, letters, config), model)
        for shots in config.shots:
            drawn = lambda data, key, number, shots=shots: jm.sample_tasks(
                jm.tasks.episodes(data, 5, shots, 5), jax.random.clone(key), number
            )
            if shots not in how:
                tasks = drawn(seen, key_choice, config.validation_tasks)
                how[shots] = chosen(partial(judge, params, tasks), config)
            tasks = drawn(unseen, key_tasks, config.test_tasks)
            for name, (said, plan) in how[shots].items():
                judged = np.asarray(judge(params, tasks, plan=plan))
                found.setdefault((shots, name, said), []).append(judged)
            found.setdefault((shots, "nearest pixels", ""), []).append(pixels(tasks))
    return {"rows": [row(what, np.array(a)) for what, a in found.items()]}


def chosen(judge: Callable[..., jax.Array], config: Config) -> dict[str, tuple]:
    """What moves -> how, and the plan: the best of several."""
    best = {}
    for name, of_name in plans(config).items():
        mean = {said: float(judge(plan=p).mean()) for said, p in of_name.items()}
        said = max(mean, key=mean.__getitem__)
        best[name] = said, of_name[said]
    return best


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


def plans(config: Config) -> dict[str, dict[str, tuple[Stage, ...]]]:
    """What moves -> how -> plan."""
    steps, head, probe = config.tuning_steps, jm.transfer.linear_probe(), config.probe
    everything = {rate: optax.adam(rate) for rate in config.rates}
    return {
        "head": {f"{r:g}": (Stage(head, optax.adam(r), steps),) for r in config.heads},
        "everything": {
            f"{rate:g}": (Stage(jm.transfer.full(), rule, steps),)
            for rate, rule in everything.items()
        },
        "head, then everything": {
            f"{first} of the head, then {rate:g}": jm.transfer.lp_ft(
                optax.adam(probe), rule, steps=(first, steps)
            )
            for first in config.probes
            for rate, rule in everything.items()
        },
    }


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


def row(what: tuple[int, str, str], judged: np.ndarray) -> dict:
    """Numbers of a cell. what: shots, what moves, how. judged: [seeds, tasks]."""
    ci95 = 1.96 * judged.std(ddof=1) / np.sqrt(judged.size)
    seeds = [float(mean) for mean in judged.mean(axis=1)]
    said = dict(zip(("shots", "what moves", "how"), what, strict=True))
    return said | {"accuracy": seeds, "ci95": float(ci95)}


def spelled(results: dict) -> list[dict]:
    """Rows of the table."""
    said = lambda r: f"{np.mean(r['accuracy']):.2f} ± {r['ci95']:.2f}"
    of_seeds = lambda r: f"{min(r['accuracy']):.2f} to {max(r['accuracy']):.2f}"
    return [
        {
            **{"shots": r["shots"], "what moves": r["what moves"]},
            **{"how": r["how"] or "-", "accuracy, %": said(r), "seeds": of_seeds(r)},
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
