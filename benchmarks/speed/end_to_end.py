"""Tasks a second of whole training: sampling, rotation, logging, checkpoints included.

jaxmeta's `fit` beside PyTorch libraries that are fed by a numpy loader (their own do not
build on Python 3.11, or know no Omniglot). Also: how much of its time `fit` spends
inside compiled programs, and what importing jaxmeta costs beyond JAX.

    python benchmarks/speed/end_to_end.py --peers-python .peers/bin/python
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import optax
import tyro

sys.path.insert(0, str(Path(__file__).parent.parent))
from report import device, save, table
from run import Process
from workloads import END_TO_END, pool

import jaxmeta as jm


@dataclass
class Config:
    """What to time."""

    peers_python: str = sys.executable  # interpreter with requirements.txt installed
    peers: tuple[str, ...] = ("learn2learn", "torchopt", "torch.func, loop", "higher")
    repeats: int = 5  # turns of each peer
    steps: int = 20  # meta-steps of jaxmeta a turn; peers take one
    parts: tuple[str, ...] = ("inside compiled", "end to end", "import")
    inside: tuple[tuple[str, int, int], ...] = (
        ("S, 1", 20_000, 1000),
        ("C, 1", 40, 10),
    )
    """Workload, steps and chunk of "inside compiled"."""

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; no images, no peers."""
        return cls(parts=("inside compiled",), inside=(("S, 1", 20, 10),))


class Chunks(jm.Log):
    """A log that also adds up the time inside compiled chunks."""

    seconds = 0.0

    def chunk(self, step, history, seconds):
        self.seconds += seconds
        super().chunk(step, history, seconds)


def fit_once(problem, steps: int, chunk: int) -> tuple[float, float]:
    """Wall seconds of a run with a log file and two checkpoints; those in chunks."""
    learner, sampler, optimizer, tasks = problem
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = jm.Checkpoints(Path(folder, "checkpoints"))
        start = time.perf_counter()
        log = Chunks(Path(folder, "metrics.jsonl"))
        with log:
            jm.fit(
                learner,
                sampler,
                optimizer,
                steps=steps,
                key=jax.random.key(0),
                tasks_per_step=tasks,
                chunk=chunk,
                log=log,
                save=checkpoints.save,
                save_every=max(1, steps // 2),
            )
        wall = time.perf_counter() - start
        checkpoints.close()
    return wall, log.seconds


def images_problem():
    """Workload C, 1 step, on episodes with rotations."""
    w, images = END_TO_END, pool()
    labels = np.repeat(np.arange(len(images)), images.shape[1])
    dataset = jm.data.from_arrays(images.reshape(-1, *images.shape[2:]), labels)
    sampler = jm.tasks.episodes(dataset, w.ways, w.shots, w.queries, rotations=True)
    learner = jm.maml(jm.models.conv4(w.ways), inner_lr=w.inner_lr)
    return learner, sampler, optax.adam(1e-3), w.tasks


def waves_problem():
    """Workload S, 1 step."""
    learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    return learner, jm.tasks.sinusoid(), optax.adam(1e-3), 25


def beside_peers(config: Config) -> list[dict]:
    """Tasks a second of each, turn by turn."""
    problem = images_problem()
    fit_once(problem, 1, 10)  # compile
    alive = {}
    for peer in config.peers:
        process = Process(config, peer, "E")
        if process.read() is None:
            print(f"{peer} failed: {process.close()}")
        else:
            alive[peer] = process
    seconds = {"jaxmeta.fit": [], **{peer: [] for peer in alive}}
    for _ in range(config.repeats):
        seconds["jaxmeta.fit"].append(
            fit_once(problem, config.steps, 10)[0] / config.steps
        )
        for peer, process in alive.items():
            seconds[peer].append(process.ask("step")["s"])
    for process in alive.values():
        process.ask("end")
        process.close()
    median = {peer: float(np.median(s)) for peer, s in seconds.items()}
    return [
        {
            "peer": peer,
            "tasks a second": f"{END_TO_END.tasks / s:.1f}",
            "ours is faster": f"{s / median['jaxmeta.fit']:.2f} times",
        }
        for peer, s in median.items()
    ]


def inside_compiled(config: Config) -> list[dict]:
    """The share of `fit`'s wall time inside its compiled chunks, once compiled."""
    rows = []
    for name, steps, chunk in config.inside:
        problem = {"S, 1": waves_problem, "C, 1": images_problem}[name]()
        fit_once(problem, 1, chunk)
        wall, inside = fit_once(problem, steps, chunk)
        share = f"{100 * inside / wall:.1f} %"
        rows.append({"workload": name, "steps": steps, "inside compiled steps": share})
    return rows


def import_seconds(config: Config) -> dict[str, float]:
    """Median of 5: importing jax, and jaxmeta after it."""
    code = (
        "import time; a = time.perf_counter(); import jax; b = time.perf_counter(); "
        "import jaxmeta; print(b - a, time.perf_counter() - b)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        for _ in range(5)
    ]
    both = np.median([[float(v) for v in r.stdout.split()] for r in runs], axis=0)
    return {"jax": float(both[0]), "jaxmeta beyond it": float(both[1])}


PARTS = {
    "inside compiled": inside_compiled,
    "end to end": beside_peers,
    "import": import_seconds,
}


def run(key: jax.Array, config: Config) -> dict:
    """The parts that are asked for; a time hangs on no key."""
    del key
    return {name: PARTS[name](config) for name in config.parts}


def main(config: Config) -> None:
    """Time everything, print the tables, keep the numbers."""
    results = run(jax.random.key(0), config)
    for name, found in results.items():
        if isinstance(found, list):
            table(f"{name}, {device()}", found)
        else:
            print(f"\n{name}, seconds:", found)
    print(save("end_to_end", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
