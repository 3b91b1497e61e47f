"""Sums of two sinusoids from the shell."""

import json
import tomllib
from pathlib import Path

from jaxmeta import cli


def test_it_has_its_headline_baseline_and_picture(tmp_path, capsys):
    run = tmp_path / "run"
    flags = "--steps 20 --chunk 5 --tasks-per-step 2 --width 4 --test-tasks 20"
    flags += " --validation-tasks 5 --no-progress"
    cli.main(["train", "--data", "harmonics", *flags.split(), "--out", str(run)])
    said = capsys.readouterr().out
    assert "mse with 95 % interval" in said and "nearest neighbour in x" in said
    assert json.loads((run / "report.json").read_text())["baselines"]
    assert (run / "episode.png").stat().st_size > 1000
    assert tomllib.loads(Path(run / "config.toml").read_text())["learner"] == "maml"
