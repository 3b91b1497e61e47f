"""iMAML: the error of its meta-gradient, and its memory, as in figure 2 of the paper.

    python benchmarks/imaml.py

Error: linear regression in 50 dimensions with a proximal term, float64, against the
closed form; relative error of the meta-gradient after 8 to 128 inner steps and 1 to 20
conjugate gradient steps, and of the unrolled loop. Memory and time: Conv4, one 5-way
1-shot task. Rajeswaran et al. 2019 show both as figures only.
"""

import statistics
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from adjoints import one_task
from report import device, save, table, temporaries

import jaxmeta as jm


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


def regression(seed: int, config: Config):
    """(theta, task, inner rate, exact meta-gradient) with correlated inputs."""
    random = np.random.default_rng(seed)
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


def errors(config: Config) -> list[dict]:
    """Relative error of the meta-gradient: a row an adjoint, a column a step count."""
    model = jm.Model(lambda key: jnp.zeros((config.dimensions, 1)), lambda w, x: x @ w)
    adjoints = {
        f"Implicit(cg, {n})": jm.Implicit("cg", iterations=n) for n in config.iterations
    } | {"unrolled": jm.MixedMode()}
    rows = []
    for name, adjoint in adjoints.items():
        row = {"adjoint": name}
        for steps in config.steps:
            found = []
            for seed in config.seeds:
                theta, task, rate, exact = regression(seed, config)
                learner = jm.imaml(
                    model,
                    inner_lr=rate,
                    inner_steps=steps,
                    penalty=config.penalty,
                    loss=jm.losses.mse,
                    adjoint=adjoint,
                )
                loss = lambda t, learner=learner, task=task: learner.loss(t, task)[0]
                gradient = jax.jit(jax.grad(loss))(theta)
                away = np.linalg.norm(gradient - exact) / np.linalg.norm(exact)
                found.append(float(away))
            row[f"{steps} steps"] = f"{np.mean(found):.1e} (to {max(found):.1e})"
        rows.append(row)
    return rows


def memory(config: Config) -> list[dict]:
    """Megabytes of temporaries and milliseconds: a row an adjoint."""
    model = jm.models.conv4(5, widths=config.width)
    task = one_task(jax.random.key(0), 15)
    params = model.init(jax.random.key(1))
    adjoints = {
        "Implicit(cg, 5)": jm.Implicit("cg", iterations=5),
        "MixedMode()": jm.MixedMode(),
        "Reverse('none')": jm.Reverse("none"),
    }
    rows = []
    for name, adjoint in adjoints.items():
        row = {"adjoint": name}
        for steps in config.memory_steps:
            learner = jm.imaml(model, inner_lr=0.01, inner_steps=steps, adjoint=adjoint)
            loss = lambda p, t, learner=learner: learner.loss(p, t)[0]
            program = jax.jit(jax.grad(loss)).lower(params, task).compile()
            seconds = []
            for _ in range(config.repeats + 1):
                start = time.perf_counter()
                jax.block_until_ready(program(params, task))
                seconds.append(time.perf_counter() - start)
            megabytes = temporaries(program)
            took = 1e3 * statistics.median(seconds[1:])
            row[f"{steps} steps"] = f"{megabytes:.0f} MB, {took:.0f} ms"
        rows.append(row)
    return rows


def main(config: Config) -> None:
    """Print both tables, keep the numbers."""
    with jax.enable_x64(True):
        found = errors(config)
    table(f"Relative error, mean (largest) of {len(config.seeds)} seeds", found)
    needed = memory(config)
    table(f"Conv4-{config.width}, one task, {device()}", needed)
    print(save("imaml", {"errors": found, "memory": needed}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
