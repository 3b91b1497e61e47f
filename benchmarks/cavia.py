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
import optax
import tyro
from published import published
from report import device, save, seeds, spelled, table

import jaxmeta as jm

METHODS = ("CAVIA", "MAML")


@dataclass
class Config:
    """One table; the defaults are that of cavia.md."""

    columns: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 10, 50)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 50_000
    test_tasks: int = 1000
    maml_lr: float = 0.01
    cavia_lr: float = 1.0

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(columns=(0, 2), seeds=(0,), steps=10, test_tasks=10)


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


def error(key: jax.Array, made: jm.MetaLearner, config: Config) -> float:
    """Train and test one network; its mean squared error."""
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


def run(key: jax.Array, config: Config) -> dict[str, dict[str, float]]:
    """The error of every cell: method -> additional parameters -> error."""
    results = {}
    for method in METHODS:
        cells = {n: learner(method, n, config) for n in config.columns}
        results[method] = {
            str(n): error(jax.random.clone(key), made, config)
            for n, made in cells.items()
            if made is not None
        }
        print(results[method], flush=True)
    return results


def rows(results: dict) -> list[dict]:
    """The table: ours and the published, of both methods."""
    columns = sorted({n for cells in results.values() for n in cells}, key=int)
    lines = []
    for method, cells in results.items():
        ours = {n: spelled(errors) for n, errors in cells.items()}
        for who, found in (("ours", ours), ("published", published("cavia", method))):
            line = {n: found.get(n, "-") for n in columns}
            lines.append({"method": f"{method}, {who}"} | line)
    return lines


def main(config: Config) -> None:
    """Run all cells, print the table, keep the numbers."""
    results = seeds(run, config)
    title = f"Sinusoid, error after one step, mean (range) of {len(config.seeds)} seeds"
    table(f"{title}, by additional parameters; {device()}", rows(results))
    print(save("cavia", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
