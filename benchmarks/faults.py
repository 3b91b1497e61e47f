"""What a run survives: killed, interrupted, damaged, on a full disk.

python benchmarks/faults.py
"""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

# what is counted is not speed, so compile fast; here and in the runs, to the same bits
os.environ["XLA_FLAGS"] = os.environ.get(
    "XLA_FLAGS", "--xla_backend_optimization_level=0"
)

import jax
import numpy as np
import tyro
from report import device, save, table

import jaxmeta as jm
from jaxmeta import cli
from jaxmeta.training import log as logs

LEARNERS = {
    "maml": "sinusoid",
    "protonet": "glyphs",
    "baseline": "glyphs",
    "cnp": "gaussian-process",
    "rl2": "bandit",
}
QUICK = {**os.environ}
SIGNALS = "SIGKILL", "SIGTERM", "Ctrl-C", "Ctrl-C twice"


@dataclass
class Config:
    """How often, of what."""

    learners: tuple[str, ...] = tuple(LEARNERS)
    kills: int = 20  # of each learner, at random moments
    interrupts: int = 1  # of each learner, of each kind
    damaged: int = 200  # files of checkpoints
    full_disks: int = 10
    steps: int = 1000
    seed: int = 0

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; some damage."""
        return cls(("maml",), 0, 0, damaged=4, full_disks=1, steps=400)


def run(key: jax.Array, config: Config) -> dict[str, list[dict]]:
    """Rows: what befell a run, how often, how often it ended as if nothing had been."""
    del key
    chance, rows = random.Random(config.seed), []
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: whole(Path(folder), name, config) for name in config.learners}
        for name, end in runs.items():
            times = {SIGNALS[0]: config.kills} | dict.fromkeys(
                SIGNALS[1:], config.interrupts
            )
            for signal_name, number in times.items():
                ends = Counter(
                    stopped(Path(folder), name, signal_name, end, chance, config)
                    for _ in range(number)
                )
                if number:
                    rows.append(counted(f"{signal_name}, {name}", ends))
                    print(rows[-1], flush=True)
        folders = [Path(folder) / f"{name}-whole" for name in config.learners]
        for what, harm in DAMAGE.items():
            ends = Counter(
                damaged(chance.choice(folders), harm, chance)
                for _ in range(config.damaged // len(DAMAGE))
            )
            rows.append(counted(what, ends))
        ends = Counter(
            full_disk(Path(folder) / str(i)) for i in range(config.full_disks)
        )
        if ends:
            rows.append(counted("a full disk", ends))
    return {"rows": rows}


def counted(what: str, ends: Counter) -> dict:
    """A row of the table."""
    good = sum(n for end, n in ends.items() if not end.startswith("lost"))
    said = ", ".join(f"{n} {end}" for end, n in sorted(ends.items()))
    return {
        "what": what,
        "times": sum(ends.values()),
        "nothing lost": good,
        "how": said,
    }


def command(name: str, out: Path, config: Config) -> list[str]:
    """A run of seconds, with a checkpoint each 200 steps."""
    flags = ["--data", LEARNERS[name], "--steps", str(config.steps), "--no-progress"]
    flags += ["--chunk", "50", "--save-every", "200", "--validate-every", "500"]
    flags += ["--width", "4", "--test-tasks", "20", "--validation-tasks", "10"]
    if LEARNERS[name] == "glyphs":
        flags += ["--model", "mlp", "--jitter", "0"]
    if LEARNERS[name] == "bandit":
        flags += [
            "--arms",
            "2",
            "--pulls",
            "3",
            "--episodes",
            "2",
            "--minibatches",
            "1",
        ]
        flags += ["--tasks-per-step", "8"]
    return [sys.executable, "-m", "jaxmeta", "train", name, *flags, "--out", str(out)]


def whole(folder: Path, name: str, config: Config) -> tuple[list, float]:
    """The arrays that an uninterrupted run ends with, and the seconds that it took."""
    out, start = folder / f"{name}-whole", time.perf_counter()
    done = subprocess.run(
        command(name, out, config), capture_output=True, text=True, env=QUICK
    )
    assert not done.returncode, done.stderr
    return jax.device_get(
        jax.tree.leaves(jm.load(out).state)
    ), time.perf_counter() - start


def stopped(folder, name, how, end, chance, config) -> str:
    """Stop a run at a random moment, go on with it, compare it with the whole one."""
    arrays, seconds = end
    out = folder / "stopped"
    shutil.rmtree(out, ignore_errors=True)
    process = subprocess.Popen(
        command(name, out, config),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=QUICK,
    )
    time.sleep(chance.uniform(0.2, 1.0) * seconds)
    kind = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}.get(
        how, signal.SIGINT
    )
    process.send_signal(kind)
    if how == "Ctrl-C twice":
        time.sleep(0.05)
        process.send_signal(kind)
    process.communicate()
    before = process.returncode == 0
    # stopped before it began, it begins again; in this process, whose programs are there
    begun = (out / "config.toml").exists()
    again = ["train", "--resume", str(out)] if begun else command(name, out, config)[3:]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            cli.main([*again, *(["--no-progress"] if begun else [])])
    except SystemExit:
        return f"lost: {said.getvalue().strip().splitlines()[-1]}"
    found = jm.load(out)
    same = all(map(np.array_equal, arrays, jax.tree.leaves(found.state)))
    steps = [
        line["step"]
        for line in logs.read(out / "metrics.jsonl")
        if "steps_per_second" in line
    ]
    once = steps == list(range(50, config.steps + 1, 50))
    if not same or not once:
        return f"lost: {'other weights' if not same else 'lines of metrics'}"
    return "had ended" if before else "bit for bit"


def flipped(path: Path, chance) -> None:
    """One bit."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(content))


def cut(path: Path, chance) -> None:
    """The end is missing."""
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def zeroed(path: Path, chance) -> None:
    """What a crash of the machine leaves: a block of zeros."""
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content))
    content[at : at + 512] = bytes(len(content[at : at + 512]))
    path.write_bytes(bytes(content))


def removed(path: Path, chance) -> None:
    """The file is gone."""
    del chance
    path.unlink()


DAMAGE = {
    "a flipped bit in a file of the newest checkpoint": flipped,
    "such a file cut": cut,
    "a block of zeros in it": zeroed,
    "such a file removed": removed,
}


def damaged(folder: Path, harm, chance) -> str:
    """Harm a file of the newest checkpoint: what is restored must have been written."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "run"
        shutil.copytree(folder, out)
        before = all_states(folder)
        steps = sorted(
            int(p.name) for p in (out / "checkpoints").iterdir() if p.name.isdigit()
        )
        files = [
            p for p in (out / "checkpoints" / str(steps[-1])).rglob("*")
            if p.is_file() and p.stat().st_size
        ]  # fmt: skip
        # half of them arrays, which are few of the files
        arrays = [p for p in files if p.parent.name == "d"]
        harm(chance.choice(sorted(chance.choice([files, arrays]) or files)), chance)
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                state: Any = jm.load(out).state
        except ValueError as error:
            return (
                "lost"
                if "no checkpoint can be restored" not in str(error)
                else "lost all"
            )
        wanted = before[int(state.step)]
        same = all(map(np.array_equal, *map(jax.tree.leaves, (wanted, state))))
        if not same:
            return "lost: other weights"
        named = any("can't be restored" in str(w.message) for w in said)
        return "the older one, and a sentence" if named else "not needed"


@lru_cache
def all_states(folder: Path) -> dict[int, Any]:
    """Each state that a run has kept, by its step."""
    return {int(s.step): s for s in map(restored, states(folder))}


def states(out: Path):
    """A copy of a run with each of its checkpoints as the only one."""
    for step in sorted(
        p.name for p in (out / "checkpoints").iterdir() if p.name.isdigit()
    ):
        with tempfile.TemporaryDirectory() as place:
            one = Path(place) / "run"
            shutil.copytree(out, one)
            for other in (one / "checkpoints").iterdir():
                if other.name.isdigit() and other.name != step:
                    shutil.rmtree(other)
            yield one


def restored(folder: Path):
    """The state of a run's newest checkpoint."""
    return jax.device_get(jm.load(folder).state)


def full_disk(folder: Path) -> str:
    """Files that can't grow, as on a full disk, while a checkpoint is written."""
    state = lambda step: jm.MetaState(
        np.full((64, 64), step, np.float32), (), jax.numpy.int32(step)
    )
    kept = jm.Checkpoints(folder)
    kept.save(state(1))
    kept.wait()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        kept.save(state(2))
        kept.wait()
        return "lost: nobody noticed"
    except OSError as error:
        said = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    older = jm.Checkpoints(folder, reading=True).latest(state(0))
    fine = int(older.step) == 1 and "can't be written" in said
    return "a sentence, the earlier one whole" if fine else "lost"


def spelled(results: dict) -> list[dict]:
    """The table."""
    return results["rows"]


def main(config: Config) -> None:
    """Harm runs, print the table, keep the numbers."""
    results = run(jax.random.key(config.seed), config)
    table(f"Faults, {device()}", spelled(json.loads(json.dumps(results))))
    part = (
        "" if config.learners == tuple(LEARNERS) else "_".join(("", *config.learners))
    )
    print(save(f"faults{part}", results))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main(tyro.cli(Config, description=__doc__))
