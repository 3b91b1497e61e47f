"""One run by two processes on this machine, started as Slurm starts them."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

import jaxmeta as jm
from jaxmeta import cli
from jaxmeta.cli import processes
from jaxmeta.training import log

TRAIN = (
    "train maml --data sinusoid --tasks-per-step 2 --width 4 --chunk 5 --reduce tree "
    "--tasks-at-once 1 --validate-every 10000 --save-every 10 --validation-tasks 4 "
    "--test-tasks 4 --no-progress"
)
JAXMETA = Path(sys.executable).with_name("jaxmeta")
# a device each, and programs that are compiled fast
ENVIRONMENT = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    for child in STARTED:  # those that a failed test left
        child.kill()
    STARTED.clear()


def start(words: str) -> list[subprocess.Popen]:
    """The installed command in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = {
        **{"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost"},
        **{"SLURM_NTASKS": "2", "JAX_COORDINATOR_PORT": str(port)},
    }
    both = [
        subprocess.Popen(
            [JAXMETA, *words.split(), "--distributed"],
            env=ENVIRONMENT | cluster | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    STARTED.extend(both)
    return both


def ended(both: list[subprocess.Popen]) -> tuple[list[int], list[str], list[str]]:
    """Exit codes, and what each printed."""
    said = [child.communicate(timeout=300) for child in both]
    own = lambda text: "".join(
        line for line in text.splitlines(True) if not line.startswith("[Gloo]")
    )
    told, errors = ([own(text) for text in texts] for texts in zip(*said, strict=True))
    return [child.returncode for child in both], told, errors


def until_saved(both: list[subprocess.Popen], beyond: int = 0) -> None:
    """Wait for a checkpoint of a later step."""
    folder = Path("run/checkpoints")
    for _ in range(3000):
        names = [p.name for p in folder.glob("*")] if folder.exists() else []
        if any(name.isdigit() and int(name) > beyond for name in names):
            return
        assert not any(child.poll() for child in both), ended(both)
        time.sleep(0.1)
    raise AssertionError("nothing was saved in five minutes")


def step() -> int:
    return int(jm.load("run").state.step)


@pytest.mark.slow
def test_two_processes_stop_together_and_survive_a_kill():
    both = start(f"{TRAIN} --steps 1000000 --out run")
    until_saved(both)
    both[1].send_signal(signal.SIGTERM)  # as before a machine is taken away, to one
    codes, told, _ = ended(both)
    assert codes == [130, 130] and told[1] == ""
    stopped = step()
    lines = Path("run/metrics.jsonl").read_text().splitlines()
    assert len(lines) == stopped // 5  # of one process

    both = start("train --resume run --no-progress")
    until_saved(both, beyond=stopped)
    both[1].kill()
    codes, _, errors = ended(both)
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, -signal.SIGKILL)
    assert "another process has ended" in errors[0]

    more = step() + 10
    both = start(f"train --resume run --steps {more} --no-progress")
    codes, told, errors = ended(both)
    assert codes == [0, 0], errors
    assert f"after {more} steps" in told[0] and told[1] == ""
    assert step() == more and Path("run/report.md").stat().st_size > 100
    lines = [
        line for line in log.read(Path("run/metrics.jsonl")) if line["step"] == more
    ]
    assert len(lines) == 2  # of one process: what it trained, what it validated


def test_of_processes_that_are_one(capsys):
    """No cluster has started the tests."""
    assert processes.is_first() and processes.told("run") == "run"
    assert processes.any_of(True) and not processes.any_of(False)
    with pytest.raises(SystemExit):
        cli.main(["train", "maml", "--data", "sinusoid", "--distributed"])
    said = capsys.readouterr().err
    assert "distributed: the other processes were not found" in said
    assert jax.process_count() == 1 and not Path("runs").exists()
