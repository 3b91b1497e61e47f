"""Sums of two sinusoids: the functions themselves, and a run from the shell."""

import json
from pathlib import Path

import jax
import numpy as np

from jaxmeta import cli
from jaxmeta.cli.sources.harmonics import AMPLITUDES, FREQUENCIES, harmonics


def test_a_task_is_a_sum_of_two_waves():
    """Fitted by least squares on a grid of frequencies, it leaves next to nothing."""
    task = harmonics(shots=60, queries=60).sample(jax.random.key(3))
    x, y = (np.asarray(a)[:, 0].astype(float) for a in task.support[:2])
    slow, fast = (np.linspace(*limits, 101) for limits in FREQUENCIES)
    wave = lambda w: np.stack([np.sin(w * x), np.cos(w * x)], axis=1)
    best = np.inf
    for w in slow:
        for v in fast:
            basis = np.concatenate([wave(w), wave(v)], axis=1)
            c, rest, *_ = np.linalg.lstsq(basis, y, rcond=None)
            if rest.size and rest[0] < best:
                best, found = rest[0], c
    assert best / len(x) < 1e-3 * y.var()
    for part, (low, high) in zip((found[:2], found[2:]), AMPLITUDES, strict=True):
        assert 0.9 * low < np.linalg.norm(part) < 1.1 * high


def test_it_has_its_headline_baseline_and_picture(tmp_path, capsys):
    run = tmp_path / "run"
    flags = "--steps 20 --chunk 5 --tasks-per-step 2 --width 4 --test-tasks 20"
    flags += " --validation-tasks 5 --no-progress"
    cli.main(["train", "--data", "harmonics", *flags.split(), "--out", str(run)])
    said = capsys.readouterr().out
    assert "mse with 95 % interval" in said and "nearest neighbour in x" in said
    assert json.loads((run / "report.json").read_text())["baseline"]["mean"]
    assert (run / "episode.png").stat().st_size > 1000
    assert json.loads(Path(run / "config.json").read_text())["learner"] == "maml"
