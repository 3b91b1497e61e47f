"""iMAML: the error of its meta-gradient, and its memory, as in figure 2 of the paper.

    python benchmarks/imaml.py

Error: linear regression in 50 dimensions with a proximal term, float64, against the
closed form; relative error of the meta-gradient after 8 to 128 inner steps and 1 to 20
conjugate gradient steps, and of the unrolled loop. Memory and time: Conv4, one 5-way
1-shot task. Rajeswaran et al. 2019 show both as figures only.
"""

import statistics
import time
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from adjoints import one_task
from report import device, save, stacked, table, temporaries

import jaxmeta as jm
from jaxmeta.inner import Adjoint


@dataclass
class Config:
    """Both tables."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: tuple[int, ...] = (8, 16, 32, 64, 128)
    iterations: tuple[int, ...] = (1, 2, 5, 10, 20)
    dimensions: int = 50
    examples: int = 40
    penalty: float = 0.1
    memory_steps: tuple[int, ...] = (1, 4, 16)
    width: int = 64
    repeats: int = 5

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; no network."""
        small = {"dimensions": 8, "examples": 6, "repeats": 1}
        return cls((0,), (200,), (1, 50), memory_steps=(), **small)


def regression(key: jax.Array, config: Config):
    """(theta, task, inner rate, exact meta-gradient) with correlated inputs."""
    random = np.random.default_rng(int(jax.random.key_data(key)[-1]))  # the seed
    d, n = config.dimensions, config.examples
    spread = np.logspace(0, -1, d)  # condition number 100 before the proximal term
    x, xq = random.normal(size=(2, n, d)) * spread
    y, yq = random.normal(size=(2, n, 1))
    theta = random.normal(size=(d, 1))
    system = 2 * x.T @ x / n + config.penalty * np.eye(d)
    w = np.linalg.solve(system, 2 * x.T @ y / n + config.penalty * theta)
    query = 2 * xq.T @ (xq @ w - yq) / n
    exact = config.penalty * np.linalg.solve(system, query)
    batches = [jm.Batch(jnp.asarray(a), jnp.asarray(b)) for a, b in ((x, y), (xq, yq))]
    rate = 1 / np.linalg.eigvalsh(system)[-1]
    return jnp.asarray(theta), jm.Task(*batches), float(rate), exact


def error(problem, adjoint: Adjoint, steps: int, config: Config) -> float:
    """Relative error of the meta-gradient after some inner steps."""
    theta, task, rate, exact = problem
    learner = jm.imaml(
        jm.Model(lambda key: jnp.zeros_like(theta), lambda w, x: x @ w),
        inner_lr=rate,
        inner_steps=steps,
        penalty=config.penalty,
        loss=jm.losses.mse,
        adjoint=adjoint,
    )
    gradient = jax.jit(jax.grad(lambda t: learner.loss(t, task)[0]))(theta)
    return float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))


def errors(key: jax.Array, config: Config) -> dict[str, dict[str, float]]:
    """adjoint -> inner steps -> relative error, in double precision."""
    adjoints = {
        f"Implicit(cg, {n})": jm.Implicit("cg", iterations=n) for n in config.iterations
    } | {"unrolled": jm.MixedMode()}
    with jax.enable_x64(True):
        problem = regression(key, config)
        return {
            name: {f"{n} steps": error(problem, made, n, config) for n in config.steps}
            for name, made in adjoints.items()
        }


def memory(key: jax.Array, config: Config) -> dict[str, dict[str, dict]]:
    """adjoint -> inner steps -> megabytes of temporaries, milliseconds."""
    model = jm.models.conv4(5, widths=config.width)
    key_task, key_model = jax.random.split(key)
    arguments = model.init(key_model), one_task(key_task, 15)
    adjoints = {
        "Implicit(cg, 5)": jm.Implicit("cg", iterations=5),
        "MixedMode()": jm.MixedMode(),
        "Reverse('none')": jm.Reverse("none"),
    }
    found = {}
    for name, adjoint in adjoints.items():
        found[name] = {}
        for steps in config.memory_steps:
            learner = jm.imaml(model, inner_lr=0.01, inner_steps=steps, adjoint=adjoint)
            loss = lambda p, t, learner=learner: learner.loss(p, t)[0]
            program = jax.jit(jax.grad(loss)).lower(*arguments).compile()
            found[name][f"{steps} steps"] = {
                "MB": temporaries(program),
                "ms": milliseconds(program, arguments, config.repeats),
            }
    return found


def milliseconds(program, arguments, repeats: int) -> float:
    """The median of some runs, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds[1:])


def run(key: jax.Array, config: Config) -> dict[str, dict]:
    """Both tables; that of memory is empty without `memory_steps`."""
    return {"errors": errors(key, config), "memory": memory(key, config)}


def rows(found: dict[str, dict], spell) -> list[dict]:
    """A row an adjoint, a column a number of steps."""
    return [
        {"adjoint": name} | {column: spell(cell) for column, cell in cells.items()}
        for name, cells in found.items()
    ]


def main(config: Config) -> None:
    """Print both tables, keep the numbers; memory depends on no seed."""
    first = run(jax.random.key(config.seeds[0]), config)
    again = replace(config, memory_steps=())
    others = [run(jax.random.key(seed), again) for seed in config.seeds[1:]]
    found = stacked([r["errors"] for r in (first, *others)])
    spread = rows(found, lambda e: f"{e.mean():.1e} (to {e.max():.1e})")
    table(f"Relative error, mean (largest) of {len(config.seeds)} seeds", spread)
    needed = rows(first["memory"], lambda c: f"{c['MB']:.0f} MB, {c['ms']:.0f} ms")
    table(f"Conv4-{config.width}, one task, {device()}", needed)
    print(save("imaml", {"errors": spread, "memory": needed}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
