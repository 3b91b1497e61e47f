"""Environment steps a second of whole updates, acting and learning, beside PyTorch.

RL^2 on bandits and in the grid, MAML-RL in 2-D navigation; the updates of all peers are
interleaved as in `run.py`, and their gradients compared first. Each has one core, and the
seconds are that core's: two threads that wait for each other are slowed tenfold by another
job, more in one library than in another. Also: what stays resident over many updates.

    python benchmarks/speed/agents.py --peers-python .peers/bin/python
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import optax
import tyro

sys.path.insert(0, str(Path(__file__).parent.parent))
from agents_workloads import TRIALS
from report import device, save, table
from run import gradient_errors, time_steps

import jaxmeta as jm

TORCH = "PyTorch, all at once", "PyTorch, one at a time"


@dataclass
class Config:
    """What to time."""

    peers_python: str = sys.executable  # interpreter with requirements.txt installed
    workloads: tuple[str, ...] = ("bandit", "grid", "navigation")
    peers: tuple[str, ...] = ("jaxmeta", "naive JAX", *TORCH)
    repeats: int = 15  # turns of each peer
    slow_s: float = 2.0  # a peer whose update takes longer is timed 3 times only
    gradients: bool = True  # compare them first, in float64
    memory_after: tuple[int, ...] = (100, 500, 1000)  # updates
    out: str = "agents"  # name of the file under benchmarks/results/

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; no PyTorch."""
        return cls(
            peers=("jaxmeta",),
            workloads=("bandit, tiny",),
            repeats=3,
            gradients=False,
            memory_after=(1, 2),
        )


class Resident(jm.Log):
    """A log that also notes the resident memory of the process, in MB, at each chunk."""

    def __init__(self, every):
        super().__init__(None, every)
        self.mb = {}

    def chunk(self, step, history, seconds):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.mb[step] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        super().chunk(step, history, seconds)


def resident(key: jax.Array, after: tuple[int, ...]) -> list[dict]:
    """Resident MB of a run of RL^2 on two arms, after so many updates."""
    env = jm.envs.bandit(arms=2, pulls=10)
    agent = jm.rl2(env, hidden=16)
    outer = jm.policy_gradient(agent, env, optax.adam(1e-3), tasks_per_step=64)
    log = Resident(after[-1])
    with log:
        jm.fit(outer, None, steps=after[-1], key=key, chunk=after[0], log=log)
    return [{"updates": n, "resident MB": f"{log.mb[n]:.1f}"} for n in after]


def run(key: jax.Array, config: Config) -> dict:
    """workload -> peer -> ms of an update (quartiles), first update, peak; and memory."""
    results = {}
    for name in config.workloads:
        peers, errors = config.peers, {}
        if config.gradients:
            errors = gradient_errors(config, name, peers)
        results[name] = time_steps(config, name, peers)
        for peer, row in results[name].items():
            row["gradient_error"] = errors.get(peer)
    return {"results": results, "memory": resident(key, config.memory_after)}


def rates(results: dict) -> list[dict]:
    """Environment steps a second, median and quartiles; then times of PyTorch over ours."""
    rows = [
        {"environment steps a second": peer}
        | {name: _rate(name, found.get(peer, {})) for name, found in results.items()}
        for peer in dict.fromkeys(p for found in results.values() for p in found)
    ]
    return rows + [
        {"environment steps a second": f"jaxmeta / {peer}"}
        | {name: _ratio(found, peer) for name, found in results.items()}
        for peer in dict.fromkeys(p for found in results.values() for p in found)
        if peer != "jaxmeta"
    ]


def _rate(name: str, row: dict) -> str:
    if "ms" not in row:
        return ""
    high, median, low = (1e3 * TRIALS[name].steps / ms for ms in row["ms"])
    return f"{median:,.0f} ({low:,.0f} to {high:,.0f})"


def _ratio(found: dict, peer: str) -> str:
    row = found.get(peer, {})
    return f"**{row['ms'][1] / found['jaxmeta']['ms'][1]:.1f}**" if "ms" in row else ""


def main(config: Config) -> None:
    """Time everything, print the tables, keep the numbers."""
    found = run(jax.random.key(0), config)
    for name, rows in found["results"].items():
        for peer, row in rows.items():
            if "failed" in row:
                print(f"{name}: {peer} failed: {row['failed']}")
    table(f"Whole updates, {device()}", rates(found["results"]))
    table("Resident memory", found["memory"])
    kept = {k: v for k, v in vars(config).items() if k != "peers_python"}  # a path
    print(save(config.out, {"config": kept, **found}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
