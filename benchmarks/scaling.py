"""What more devices give: the same work on more of them, and more work on more of them.

    python benchmarks/scaling.py

On a CPU the devices are its cores. "strong": one step of the same tasks; "weak": as many
tasks a device as on one.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import jax
import numpy as np
import optax
import tyro
from jax.sharding import Mesh
from report import device, save, table

import jaxmeta as jm

OUTER = optax.adam(1e-3)


@dataclass
class Config:
    """What to time; steps: of a timing, tasks: of a step on one device."""

    devices: tuple[int, ...] = (1, 2)
    workloads: tuple[str, ...] = ("sinusoids", "conv4", "population of 8")
    steps: int = 1000
    conv4_steps: int = 10
    repeats: int = 5

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls((1, 2), ("sinusoids",), steps=2, repeats=1)


def sinusoids(mesh: Mesh, times: int, config: Config):
    """MAML, 25 tasks of 10 points (24 on one device, which more numbers divide)."""
    learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    sampler = jm.tasks.sinusoid(shots=10, queries=10)
    return fit(learner, sampler, 24 * times, mesh, config.steps)


def conv4(mesh: Mesh, times: int, config: Config):
    """MAML, 16 tasks of 5 letters, once each."""
    learner = jm.maml(jm.models.conv4(5, strided=True), inner_lr=0.4)
    sampler = jm.tasks.episodes(jm.data.glyphs(), ways=5, shots=1, queries=1)
    return fit(learner, sampler, 16 * times, mesh, config.conv4_steps)


def fit(learner, sampler, tasks: int, mesh: Mesh, steps: int):
    """A function that does so many steps."""
    run = partial(
        jm.fit,
        *(learner, sampler, OUTER),
        steps=steps,
        chunk=steps,
        tasks_per_step=tasks,
        mesh=mesh,
        log=Silent(),
    )
    return lambda: run(key=jax.random.key(0)).params, steps


def member(inner_lr):
    """MAML with a rate of its own."""
    return jm.maml(jm.models.mlp(), inner_lr=inner_lr, loss=jm.losses.mse), OUTER


def population(mesh: Mesh, times: int, config: Config):
    """Eight seeds of the sinusoids, 24 tasks each."""
    over_members = Mesh(mesh.devices, ("members",))

    def run():
        states, _ = jm.fit_population(
            member,
            jm.tasks.sinusoid(shots=10, queries=10),
            keys=jax.random.split(jax.random.key(0), 8 * times),
            steps=config.steps,
            tasks_per_step=24,
            inner_lr=np.linspace(0.005, 0.02, 8 * times),
            mesh=over_members,
        )
        return states.params

    return run, config.steps


class Silent:
    """A log of nothing."""

    def chunk(self, step, history, seconds) -> None:
        """Steps were done."""

    def validation(self, step, report) -> None:
        """There is none."""


WORKLOADS: dict[str, Callable] = {
    "sinusoids": sinusoids,
    "conv4": conv4,
    "population of 8": population,
}


def run(key: jax.Array, config: Config) -> dict[str, list[dict]]:
    """Rows: milliseconds of a step, all cases taking turns."""
    del key  # the work depends on no number
    cases: dict[tuple[str, str, int], tuple[Callable, int]] = {}
    for name in config.workloads:
        for n in config.devices:
            mesh = Mesh(np.array(jax.devices()[:n]), ("tasks",))
            cases[name, "strong", n] = WORKLOADS[name](mesh, 1, config)
            if n > 1:
                cases[name, "weak", n] = WORKLOADS[name](mesh, n, config)
    seconds: dict[tuple, list[float]] = {case: [] for case in cases}
    for turn in range(config.repeats + 1):  # the first compiles
        for case, (once, steps) in cases.items():
            start = time.perf_counter()
            jax.block_until_ready(once())
            if turn:
                seconds[case].append((time.perf_counter() - start) / steps)
    median = {case: 1e3 * float(np.median(s)) for case, s in seconds.items()}
    first = min(config.devices)
    return {
        "rows": [
            {
                **{"workload": name, "scaling": kind, "devices": n, "ms": value},
                "of one": value / median[name, "strong", first],
            }
            for (name, kind, n), value in median.items()
        ]
    }


def spelled(results: dict) -> list[dict]:
    """Rows of the table; efficiency: 1 = nothing is lost."""
    lines = []
    for row in results["rows"]:
        ideal = 1 / row["devices"] if row["scaling"] == "strong" else 1
        lines.append(
            {name: row[name] for name in ("workload", "scaling", "devices")}
            | {
                "ms a step": f"{row['ms']:.3f}",
                "times one device": f"{row['of one']:.2f}",
            }
            | {"efficiency": f"{ideal / row['of one']:.2f}"}
        )
    return lines


def main(config: Config) -> None:
    """Time all cases, print the table, keep the numbers."""
    results = {"config": asdict(config), **run(jax.random.key(0), config)}
    table(f"Strong and weak scaling, {device()}", spelled(results))
    print(save("scaling", results))


if __name__ == "__main__":
    arguments = tyro.cli(Config, description=__doc__)
    jax.config.update("jax_num_cpu_devices", max(arguments.devices))
    main(arguments)
