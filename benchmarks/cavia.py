"""CAVIA's sinusoid table: MAML and CAVIA against the number of additional parameters.

    python benchmarks/cavia.py

Zintgraf et al. 2019, table 1. Protocol of its code: K = 10 points for adaptation and 10
for the outer loss, 25 tasks a step, one inner step, 50,000 meta-steps of Adam 1e-3, each
task's meta-gradient clipped to -10..10 entry by entry; mean squared error on 1,000 test
tasks of 10 points after one step. MAML has the additional inputs too, and adapts all
parameters. Departures: no decay of the rate, and 100 random test points in place of a grid.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from report import device, save, spelled, table

import jaxmeta as jm

# from memory of the paper (TARGETS.md marks them so): to be read as a guide
PUBLISHED = {
    "CAVIA": {1: 0.84, 2: 0.21, 3: 0.20, 5: 0.19, 50: 0.19},
    "MAML": {0: 0.33, 1: 0.29, 2: 0.24, 5: 0.23},
}


@dataclass
class Config:
    """One table; the defaults are that of README.md."""

    columns: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 10, 50)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 50_000
    test_tasks: int = 1000
    maml_lr: float = 0.01
    cavia_lr: float = 1.0


def clipped_gradient(learner: jm.MetaLearner, limit: float = 10.0):
    """`meta_gradient` with every task's own gradient clipped."""
    one = jax.value_and_grad(learner.loss, has_aux=True)

    def gradient(params, tasks, key=None, step=None):
        del key, step
        value, grads = jax.vmap(one, (None, 0))(params, tasks)
        clip = lambda g: jnp.mean(jnp.clip(g, -limit, limit), axis=0)
        return jax.tree.map(jnp.mean, value), jax.tree.map(clip, grads)

    return gradient


def learner(method: str, inputs: int, config: Config) -> jm.MetaLearner | None:
    """The learner of one cell; CAVIA with nothing to adapt does not exist."""
    model = jm.models.mlp(context=inputs)
    if method == "MAML":
        return jm.maml(model, inner_lr=config.maml_lr, loss=jm.losses.mse)
    if inputs == 0:
        return None
    return jm.cavia(model, inner_lr=config.cavia_lr, loss=jm.losses.mse)


def run(key: jax.Array, method: str, inputs: int, config: Config) -> float:
    """Train and test one network; its mean squared error."""
    made = learner(method, inputs, config)
    assert made is not None
    key_train, key_test = jax.random.split(key)
    state = jm.fit(
        made,
        jm.tasks.sinusoid(10, 10),
        optax.adam(1e-3),
        steps=config.steps,
        key=key_train,
        tasks_per_step=25,
        gradient=clipped_gradient(made),
        chunk=1000,
    )
    test = jm.tasks.sinusoid(10, 100)
    report = jm.evaluate(
        made, state.params, test, num_tasks=config.test_tasks, key=key_test
    )
    return report.mean["loss"]


def main(config: Config) -> None:
    """Run all cells, print the table, keep the numbers."""
    results: dict[str, dict[int, list[float]]] = {"CAVIA": {}, "MAML": {}}
    for method, cells in results.items():
        for inputs in config.columns:
            if learner(method, inputs, config) is not None:
                keys = [jax.random.key(seed) for seed in config.seeds]
                cells[inputs] = [run(key, method, inputs, config) for key in keys]
                print(method, inputs, spelled(np.array(cells[inputs])), flush=True)
    rows = []
    for method, cells in results.items():
        ours = {str(n): "-" for n in config.columns}
        ours |= {str(n): spelled(np.array(v)) for n, v in cells.items()}
        rows.append({"method": f"{method}, ours"} | ours)
        known = {str(n): PUBLISHED[method].get(n, "-") for n in config.columns}
        rows.append({"method": f"{method}, published (from memory)"} | known)
    title = f"Sinusoid, error after one step, mean (range) of {len(config.seeds)} seeds"
    table(f"{title}, by additional parameters; {device()}", rows)
    print(
        save(
            "cavia", {m: {str(n): v for n, v in c.items()} for m, c in results.items()}
        )
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
