"""One run by two processes on this machine, started as Slurm starts them."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from surroundings import xla_flags

import jaxmeta as jm
from jaxmeta import cli
from jaxmeta.cli import processes, session
from jaxmeta.cli.run import Run
from jaxmeta.cli.sources import source
from jaxmeta.training import log

TRAIN = (
    "train maml --data sinusoid --tasks-per-step 2 --width 4 --chunk 5 --reduce tree "
    "--tasks-at-once 1 --validate-every 1000000 --save-every 10 --validation-tasks 5 "
    "--test-tasks 5 --tested best --no-progress"
)
# one command after the other, which share what is compiled, as in conftest.py
COMMANDS = """
import sys
import optax
from jaxmeta import cli
from jaxmeta.boundary import remembered

optax.adam = remembered(optax.adam)
for words in sys.argv[1:]:
    try:
        cli.main(words.split())
    except SystemExit as end:
        print("left with", end.code)
"""
# a device each, and programs that are compiled fast
ENVIRONMENT = os.environ | {"XLA_FLAGS": xla_flags(without="device_count")}


STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    for child in STARTED:  # those that a failed test left
        child.kill()
        child.wait()
    STARTED.clear()


def start(*commands: str) -> list[subprocess.Popen]:
    """Commands in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = {
        **{"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost"},
        **{"SLURM_NTASKS": "2", "JAX_COORDINATOR_PORT": str(port)},
    }
    both = [process(rank, ENVIRONMENT | cluster, commands) for rank in "01"]
    STARTED.extend(both)
    return both


def process(rank: str, environment: dict[str, str], commands) -> subprocess.Popen:
    """What it prints goes to files."""
    own = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}
    words = [f"{command} --distributed" for command in commands]
    with open(f"told{rank}", "w") as told, open(f"errors{rank}", "w") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", COMMANDS, *words],
            env=environment | own,
            stdout=told,
            stderr=errors,
        )


def said(what: str) -> list[str]:
    """By both processes, "told" or "errors"."""
    texts = [Path(f"{what}{rank}").read_text().splitlines(True) for rank in "01"]
    return ["".join(s for s in lines if not s.startswith("[Gloo]")) for lines in texts]


def until(holds: Callable[[], bool], both: list[subprocess.Popen]) -> None:
    """Wait for it."""
    for _ in range(1000):
        if holds():
            return
        assert not any(child.poll() for child in both), said("errors")
        time.sleep(0.1)
    raise AssertionError(said("errors"))


def saved(beyond: int) -> bool:
    """Whether there is a checkpoint of a later step."""
    names = [path.name for path in Path("run/checkpoints").glob("*")]
    return any(name.isdigit() and int(name) > beyond for name in names)


@pytest.mark.slow
def test_two_processes_test_together_stop_together_and_survive_a_kill(
    capsys, monkeypatch
):
    go_on = "train --resume run --no-progress --steps"
    both = start(f"{TRAIN} --steps 10 --out run", *[f"{go_on} 1000000"] * 2)
    until(lambda: saved(beyond=10), both)
    both[1].send_signal(signal.SIGTERM)  # as before a machine is taken away, to one
    stopped = r"stopped at step (\d+), all saved; go on with"
    until(lambda: all(re.search(stopped, text) for text in said("errors")), both)
    steps = [int(re.findall(stopped, text)[0]) for text in said("errors")]
    until(lambda: saved(beyond=steps[0]), both)
    both[1].kill()
    codes, told, errors = [c.wait(60) for c in both], said("told"), said("errors")
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, codes[1]), errors
    assert steps[0] == steps[1]
    assert told[1] == "left with 0\n" and told[0].endswith(told[1])
    assert "another process has ended" in errors[0]

    # they split the tasks of their test; one device has the same digits
    result = next(line for line in told[0].splitlines() if "learned" in line)
    devices = []

    def on_one(*args, mesh=None, **how):
        devices.append(1 if mesh is None else mesh.size)
        return jm.evaluate(*args, **how)

    monkeypatch.setattr(source, "evaluate", on_one)
    capsys.readouterr()
    cli.main(["evaluate", "run", "--devices", "2"])
    alone = capsys.readouterr().out
    assert "after 10 steps, 5 unseen tasks" in alone and result in alone
    assert devices == [2, 1]  # the baseline is no work
    # and goes on
    more = session.done(Run("run")) + 5
    cli.main(f"{go_on} {more}".split())
    lines = log.read(Path("run/metrics.jsonl"))  # of one process
    trained = [line["step"] for line in lines if "loss" in line]
    assert trained == [*range(5, more + 1, 5)]


def test_a_signal_while_the_processes_agree_is_not_lost(capsys, monkeypatch):
    """They agree after each chunk, so it often comes just then: too late to be told."""
    agreed = []

    def largest_of(number):
        agreed.append(number)
        if len(agreed) == 2:  # the first is before training
            os.kill(os.getpid(), signal.SIGTERM)
            until(lambda: "stopping" in capsys.readouterr().err, [])
        return number

    monkeypatch.setattr(processes, "largest_of", largest_of)
    with pytest.raises(SystemExit, match="130"):
        cli.main(f"{TRAIN} --steps 1000 --out run".split())
    assert "stopped at step 10, all saved" in capsys.readouterr().err
    assert agreed == [0, 0, signal.SIGTERM, signal.SIGTERM]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed\nReset"), 1, "another process has ended"),
        (jax.errors.JaxRuntimeError("INTERNAL: NCCL"), 1, "(INTERNAL: NCCL); go on with"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB"), 2, "error: RESOURCE"),
        (ValueError("ways: got 0"), 2, "error: ways: got 0"),
    ],
)  # fmt: skip
def test_of_several_a_process_that_fails_says_why_and_leaves(
    capsys, monkeypatch, error, code, words
):
    """The runtime raises the loss of another as one type or another."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(os, "_exit", lambda found: codes.append(found))
    codes = []
    with processes.together(KeyboardInterrupt):
        raise error
    said = capsys.readouterr().err
    assert codes == [code] and said.startswith("process 0: ") and words in said
    assert "Reset" not in said


def test_of_processes_that_are_one(capsys):
    """No cluster has started the tests."""
    assert processes.is_first() and processes.told("run") == "run"
    assert processes.largest_of(signal.SIGTERM) == 15 and not processes.are_joined()
    with pytest.raises(SystemExit):
        cli.main(["train", "maml", "--data", "sinusoid", "--distributed"])
    said = capsys.readouterr().err
    assert "distributed: the other processes were not found" in said
    assert jax.process_count() == 1 and not Path("runs").exists()
