"""Milliseconds of an outer step of problems in two levels, beside TorchOpt, higher, Betty.

Hyper-cleaning and Meta-Weight-Net, the same data, networks, first weights and schedule:
both levels go on from where they were. Derivatives of the first step are compared first,
in float64. Peers take turns of 100 outer steps as in `run.py`, have one core each, and the
time is that core's, as in `agents.py`. Then each runs on in a process of its own, for what
stays in memory, and for what it has learned.

    python benchmarks/speed/two_levels.py --peers-python .peers/bin/python
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent.parent))
from report import device, save, table
from run import Process, gradient_errors, time_steps
from two_levels_workloads import PROBLEMS

THEIRS = "TorchOpt", "higher", "Betty", "Betty, differences"


@dataclass
class Config:
    """What to time."""

    peers_python: str = sys.executable  # interpreter with requirements.txt installed
    workloads: tuple[str, ...] = tuple(n for n in PROBLEMS if "tiny" not in n)
    peers: tuple[str, ...] = ("jaxmeta", *THEIRS)
    repeats: int = 15  # turns of each peer
    slow_s: float = 10.0  # a peer whose turn takes longer is timed 3 times only
    gradients: bool = True  # compare them first, in float64
    memory_after: tuple[int, ...] = (100, 1_000, 10_000)  # outer steps
    out: str = "two_levels"  # name of the file under benchmarks/results/

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; no PyTorch, and one process."""
        few = {"repeats": 3, "gradients": False, "memory_after": ()}
        return cls(workloads=("Meta-Weight-Net, tiny",), peers=("jaxmeta",), **few)


def run(key: jax.Array, config: Config) -> dict:
    """problem -> peer -> ms of a step, difference of the derivative, memory, accuracy."""
    del key  # the data are those of two_levels_workloads.py
    results = {}
    for name in config.workloads:
        errors = gradient_errors(config, name, config.peers) if config.gradients else {}
        results[name] = rows = time_steps(config, name, config.peers)
        for peer, row in rows.items():
            row["gradient_error"] = errors.get(peer)
            if "ms" in row:
                of_one = np.array(row.pop("turns_ms")) / PROBLEMS[name].turn
                row["ms"] = [float(f(of_one)) for f in (np.min, np.median, np.max)]
                row["memory"] = left(config, name, peer) if config.memory_after else []
    return {"results": results}


def left(config: Config, name: str, peer: str) -> list[dict]:
    """Resident and peak MB, and what has been learned, after so many outer steps."""
    process, done, found = Process(config, peer, name), PROBLEMS[name].turn, []
    process.read()  # it has taken one turn
    for steps in config.memory_after:
        answer = process.ask(f"run {steps - done}")
        if answer is None:
            break
        found.append({"steps": steps, **answer})
        done = steps
    process.close()
    return found


def spelled(results: dict) -> list[dict]:
    """A line a problem and peer: time, ratio, difference of the derivative."""
    lines = []
    for name, rows in results["results"].items():
        ours = rows["jaxmeta"]["ms"][1]
        for peer, row in rows.items():
            line = {"problem": name, "peer": peer}
            line["ms a step"] = f"failed: {row.get('failed', '')}"
            line |= {"times ours": "", "derivative off by": ""}
            if "ms" in row:
                low, median, high = row["ms"]
                off = row["gradient_error"]
                line["ms a step"] = f"{median:.3f} ({low:.3f} to {high:.3f})"
                line["times ours"] = f"{median / ours:.1f}"
                line["derivative off by"] = "-" if off is None else f"{off:.0e}"
            lines.append(line)
    return lines


def memory(results: dict) -> list[dict]:
    """A line a problem and peer: what is learned at the end, peak and resident MB."""
    lines = []
    for name, rows in results["results"].items():
        for peer, row in rows.items():
            line = {"problem": name, "peer": peer}
            found = row.get("memory", [])
            for last in found[-1:]:
                line["accuracy"] = f"{last['accuracy']:.3f}"
                line["F1"] = f"{last['f1']:.3f}" if "f1" in last else "-"
                line["peak MB"] = f"{last['peak_mb']:.1f}"
            for at in found:
                line[f"MB after {at['steps']:,}"] = f"{at['resident_mb']:.1f}"
            lines.append(line)
    columns = max(lines, key=len)
    return [{c: line.get(c, "died") for c in columns} for line in lines]


def main(config: Config) -> None:
    """Time everything, print the tables, keep the numbers."""
    found = run(jax.random.key(0), config)
    table(f"An outer step, {device()}", spelled(found))
    table("Memory", memory(found))
    kept = {k: v for k, v in vars(config).items() if k != "peers_python"}  # a path
    print(save(config.out, {"config": kept, **found}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
