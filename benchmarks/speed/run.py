"""One meta-step of jaxmeta beside the libraries that one would otherwise use.

Every peer runs in a process of its own; their steps are interleaved and the order is
rotated, so that all see the same machine. Gradients are compared in float64 first.

    python benchmarks/speed/run.py --peers-python .peers/bin/python
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent.parent))
from report import device, save, table
from workloads import WORKLOADS

WORKER = Path(__file__).with_name("worker.py")
# XLA's newer code generator makes faster programs; its predecessor compiles in less time
# and a fifth of the memory. jaxlib 0.11.1 and later have it no more: there this peer fails.
SMALL = "--xla_cpu_use_fusion_emitters=false"
JAX = ("jaxmeta", "jaxmeta, small compiler", "naive JAX")
TORCH = (
    "learn2learn",
    "higher",
    "torchopt",
    "torch.func, loop",
    "torch.func, vmap",
    "parallel-metalearn, vmap",
    "parallel-metalearn, loop",
    "PyTorch ProtoNet",
)


@dataclass
class Config:
    """What to time."""

    peers_python: str = sys.executable  # interpreter with requirements.txt installed
    workloads: tuple[str, ...] = tuple(WORKLOADS)
    peers: tuple[str, ...] = JAX + TORCH
    repeats: int = 15  # timed steps of each peer
    slow_s: float = 2.0  # a peer whose step takes longer is timed 3 times only
    naive_conv: Annotated[bool, tyro.conf.arg(help="also naive JAX on C (minutes)")] = (
        False
    )
    gradients: bool = True  # compare them first, in float64
    out: str = "speed"  # name of the file under benchmarks/results/

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; no PyTorch."""
        return cls(workloads=("S, 1",), peers=("jaxmeta", "naive JAX"), repeats=3)


class Process:
    """A worker; `ask` sends a command and reads one answer, None if it died."""

    def __init__(self, config, peer, workload, *extra):
        python = sys.executable if peer in JAX else config.peers_python
        command = [python, str(WORKER), peer, workload, *extra]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        if "small" in peer:
            environment["XLA_FLAGS"] = SMALL
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, lives as we do
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
        )

    def read(self):
        assert self.process.stdout
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def ask(self, command):
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> str:
        """Wait for its end; its last line of errors, if any, without this machine's paths."""
        self.process.communicate()  # also closes both pipes
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        self.errors.close()
        return re.sub(r"(/[\w.+-]+){2,}", "...", (lines or ["died"])[-1])[:200]


def gradient_errors(config, name, peers) -> dict[str, float | str]:
    """Relative difference of each peer's float64 meta-gradient from ours."""
    found, errors = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for i, peer in enumerate(dict.fromkeys(("jaxmeta", *peers))):
            path = f"{folder}/{i}.npz"
            process = Process(config, peer, name, "--gradient", path)
            answer, why = process.read(), process.close()
            if answer is None:
                errors[peer] = why
            elif answer["status"] == "done":
                found[peer] = dict(np.load(path))
    ours = found.get("jaxmeta")
    if ours is None:
        raise SystemExit(f"jaxmeta failed: {errors['jaxmeta']}")
    largest = max(np.abs(a).max() for a in ours.values())
    for peer, theirs in found.items():
        difference = max(np.abs(theirs[n] - a).max() for n, a in ours.items())
        errors[peer] = float(difference / largest)
    return errors


def time_steps(config, name, peers) -> dict[str, dict]:
    """Interleaved steps of all peers on one workload."""
    results, alive = {}, {}
    for peer in peers:  # one after the other: a compilation disturbs nobody's steps
        process = Process(config, peer, name)
        answer = process.read()
        if answer is None:
            results[peer] = {"failed": process.close()}
        elif answer["status"] == "ready":
            alive[peer], results[peer] = process, {"first_s": answer["first_s"]}
        else:  # this method is not offered by this peer
            process.close()
    times = {peer: [] for peer in alive}
    for peer, process in alive.items():  # a second warm-up tells the slow ones
        results[peer]["slow"] = process.ask("step")["s"] > config.slow_s
    for r in range(config.repeats):
        order = list(alive)
        order = order[r % len(order) :] + order[: r % len(order)]
        for peer in order:
            if not results[peer]["slow"] or r % (config.repeats // 3) == 0:
                times[peer].append(alive[peer].ask("step")["s"])
    for peer, process in alive.items():
        results[peer] |= process.ask("end")
        process.close()
        results[peer]["turns_ms"] = turns = [1e3 * s for s in times[peer]]
        results[peer]["ms"] = np.percentile(turns, [25, 50, 75]).tolist()
    return results


def run(key: jax.Array, config: Config) -> dict:
    """workload -> peer -> ms (quartiles), first step, peak memory, gradient error."""
    del key  # the data are those of workloads.py
    checked: dict = {}
    results: dict = {}
    for name in config.workloads:
        w = WORKLOADS[name]
        slow = not config.naive_conv and w.network == "conv4"
        peers = [p for p in config.peers if not (slow and p == "naive JAX")]
        kind = (w.network, w.method, w.ways)
        if not config.gradients:
            checked[kind] = {}
        elif kind not in checked:
            checked[kind] = gradient_errors(config, name, peers)
        results[name] = time_steps(config, name, peers)
        for peer, row in results[name].items():
            row["gradient_error"] = checked[kind].get(peer)
        show(name, results[name])
    return results


def show(name: str, rows: dict[str, dict]) -> None:
    """One workload as a table, the fastest PyTorch peer with a right gradient last."""
    ours, lines = rows["jaxmeta"]["ms"][1], []
    for peer, row in rows.items():
        if "failed" in row:
            print(f"{peer} failed: {row['failed']}")
            continue
        low, median, high = row["ms"]
        lines.append(
            {
                "peer": peer,
                "ms a step (quartiles)": f"{median:.2f} ({low:.2f} to {high:.2f})",
                "times ours": f"{median / ours:.2f}",
                "first step s": f"{row['first_s']:.1f}",
                "peak MB": f"{row['peak_mb']:.0f}",
                "gradient off by": _off_by(row),
            }
        )
    table(name, lines)
    best = best_torch(rows)
    if best:
        print(f"\nbest PyTorch: {best}, {rows[best]['ms'][1] / ours:.2f} times ours")


def _off_by(row) -> str:
    error = row["gradient_error"]
    return "not compared" if error is None else f"{error:.0e}"


def best_torch(rows):
    """The fastest PyTorch peer whose gradient is right."""
    right = {
        p: r["ms"][1]
        for p, r in rows.items()
        if p in TORCH and "ms" in r and (r["gradient_error"] or 0) < 1e-6
    }
    return min(right, key=right.__getitem__, default=None)


def summary(results: dict) -> list[dict]:
    """ms a step: a row a peer, a column a workload; the last rows are ratios."""
    peers = dict.fromkeys(p for rows in results.values() for p in rows)
    lines = []
    for peer in peers:
        line = {"ms a step": peer}
        for name, rows in results.items():
            row = rows.get(peer, {})
            if "ms" in row:
                wrong = " (wrong)" if (row["gradient_error"] or 0) > 1e-6 else ""
                line[name] = f"{row['ms'][1]:.3g}{wrong}"
            else:
                line[name] = ""
        lines.append(line)
    for what, pick in (
        ("best PyTorch", best_torch),
        ("learn2learn", lambda _: "learn2learn"),
    ):
        line = {"ms a step": f"{what} / jaxmeta"}
        for name, rows in results.items():
            row = rows.get(pick(rows), {})
            ours = rows["jaxmeta"]["ms"][1]
            line[name] = f"**{row['ms'][1] / ours:.2f}**" if "ms" in row else ""
        lines.append(line)
    return lines


def memory(results: dict) -> list[dict]:
    """Peak resident MB and seconds to the end of the first step."""
    peers = dict.fromkeys(p for rows in results.values() for p in rows)
    lines = []
    for peer in peers:
        line = {"peak MB, first step s": peer}
        for name, rows in results.items():
            row = rows.get(peer, {})
            there = "peak_mb" in row
            line[name] = f"{row['peak_mb']:.0f}, {row['first_s']:.1f}" if there else ""
        lines.append(line)
    return lines


def main(config: Config) -> None:
    """Time all workloads, print the tables, keep the numbers."""
    results = run(jax.random.key(0), config)
    table(f"All, {device()}", summary(results))
    table("Memory and compilation", memory(results))
    kept = {k: v for k, v in vars(config).items() if k != "peers_python"}  # a path
    print(save(config.out, {"config": kept, "results": results}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
