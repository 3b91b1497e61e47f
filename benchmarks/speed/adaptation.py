"""Milliseconds of whole adaptations, training and predicting, beside skada and PyTorch.

One task each: moves in closed form (CORAL, optimal transport) with softmax regression,
beside skada's pipelines with scikit-learn's; DANN beside a plain loop in PyTorch from the
same weights, whose trained networks are compared first. Peers take turns as in `run.py`,
have one core each, and the time is that core's, as in `agents.py`.

    python benchmarks/speed/adaptation.py --peers-python .peers/bin/python
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import tyro

sys.path.insert(0, str(Path(__file__).parent.parent))
from adaptation_workloads import PAIRS
from report import device, save, table
from run import gradient_errors, time_steps


@dataclass
class Config:
    """What to time."""

    peers_python: str = sys.executable  # interpreter with requirements.txt installed
    workloads: tuple[str, ...] = tuple(n for n in PAIRS if "tiny" not in n)
    peers: tuple[str, ...] = ("jaxmeta", "skada", "PyTorch")
    repeats: int = 15  # turns of each peer
    slow_s: float = 2.0  # a peer whose adaptation takes longer is timed 3 times only
    gradients: bool = True  # compare trained networks first, in float64
    out: str = "adaptation"  # name of the file under benchmarks/results/

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; no peers."""
        few = {"repeats": 3, "gradients": False}
        return cls(workloads=("DANN, tiny",), peers=("jaxmeta",), **few)


def run(key: jax.Array, config: Config) -> dict:
    """workload -> peer -> ms (quartiles), first time, accuracy, difference from ours."""
    del key  # the data are those of adaptation_workloads.py
    results = {}
    for name in config.workloads:
        errors = {}
        if config.gradients and PAIRS[name].method == "dann":
            errors = gradient_errors(config, name, config.peers)
        results[name] = time_steps(config, name, config.peers)
        for peer, row in results[name].items():
            row["gradient_error"] = errors.get(peer)
    return {"results": results}


def spelled(results: dict) -> list[dict]:
    """A line a task: ours, who is beside it, and their ratio."""
    lines = []
    for name, rows in results["results"].items():
        peer = next((p for p in rows if p != "jaxmeta"), "")
        ours, theirs = rows["jaxmeta"], rows.get(peer, {})
        ratio = f"**{theirs['ms'][1] / ours['ms'][1]:.2f}**" if "ms" in theirs else ""
        lines.append(
            {
                "task": name,
                "jaxmeta, ms": _quartiles(ours),
                "beside it, ms": f"{peer}: {_quartiles(theirs)}" if peer else "",
                "beside it / jaxmeta": ratio,
                "our compiling, s": f"{ours['first_s'] - ours['ms'][1] / 1e3:.1f}",
                "accuracy, ours and beside it": f"{_accuracy(ours)}, {_accuracy(theirs)}",
            }
        )
    return lines


def _quartiles(row: dict) -> str:
    if "ms" not in row:
        return f"failed: {row.get('failed', '')}"
    low, median, high = (f"{ms:.3g}" if ms < 100 else f"{ms:,.0f}" for ms in row["ms"])
    return f"{median} ({low} to {high})"


def _accuracy(row: dict) -> str:
    return f"{row['accuracy']:.3f}" if "accuracy" in row else "-"


def main(config: Config) -> None:
    """Time everything, print the table, keep the numbers."""
    found = run(jax.random.key(0), config)
    table(f"Whole adaptations, {device()}", spelled(found))
    kept = {k: v for k, v in vars(config).items() if k != "peers_python"}  # a path
    print(save(config.out, {"config": kept, **found}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
