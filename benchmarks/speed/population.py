"""What a population costs: seeds of workload S in one program beside one seed.

python benchmarks/speed/population.py
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import optax
import tyro
from jax.sharding import Mesh

sys.path.insert(0, str(Path(__file__).parent.parent))
from report import device, save, table

import jaxmeta as jm


@dataclass
class Config:
    """What to time."""

    steps: int = 1000
    members: tuple[int, ...] = (1, 2, 4, 8, 16)
    repeats: int = 7
    devices: int = 1  # host devices that the members are spread over, one a core

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(steps=2, members=(1, 2), repeats=1)


def make(inner_lr, meta_lr):
    """A member: MAML on sinusoids with its own rates."""
    mlp = jm.models.mlp()
    learner = jm.maml(mlp, inner_lr=inner_lr, loss=jm.losses.mse)
    return learner, optax.adam(meta_lr)


def run(key: jax.Array, config: Config) -> dict[str, list[dict]]:
    """Median time of each size, the sizes taking turns."""
    mesh = Mesh(np.array(jax.devices()[: config.devices]), "members")

    def once(n):
        states, _ = jm.fit_population(
            make,
            jm.tasks.sinusoid(),
            keys=jax.random.split(jax.random.clone(key), n),
            steps=config.steps,
            tasks_per_step=25,
            inner_lr=np.linspace(0.005, 0.02, n),
            meta_lr=np.full(n, 1e-3),
            mesh=mesh if n % config.devices == 0 and n > 1 else None,
        )
        jax.block_until_ready(states)

    seconds = {n: [] for n in config.members}
    for r in range(config.repeats + 1):  # the first turn compiles
        for n in config.members:
            start = time.perf_counter()
            once(n)
            if r:
                seconds[n].append(time.perf_counter() - start)
    median = {n: float(np.median(s)) for n, s in seconds.items()}
    rows = [
        {
            "members": n,
            "ms a step": f"{1e3 * s / config.steps:.3f}",
            "times one": f"{s / median[config.members[0]]:.2f}",
        }
        for n, s in median.items()
    ]
    return {"rows": rows}


def main(config: Config) -> None:
    """Time all sizes, print the table, keep the numbers."""
    results = run(jax.random.key(0), config)
    title = f"workload S, 1 step, {config.devices} devices, {device()}"
    table(title, results["rows"])
    kept = {"config": vars(config)} | results
    print(save(f"population_{config.devices}", kept))


if __name__ == "__main__":
    arguments = tyro.cli(Config, description=__doc__)
    jax.config.update("jax_num_cpu_devices", arguments.devices)  # before the first use
    main(arguments)
