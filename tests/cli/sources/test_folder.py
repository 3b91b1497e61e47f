"""Images of the user's from the shell."""

import tomllib

import numpy as np
import pytest
from PIL import Image

from jaxmeta import cli

FLAGS = "--steps 20 --chunk 5 --tasks-per-step 2 --width 4 --test-tasks 20 --ways 2"
FLAGS = f"{FLAGS} --validation-tasks 5 --no-progress --model mlp --queries 2".split()


def classes(root, labels):
    """Six noisy images of each class."""
    random = np.random.default_rng(0)
    for c, label in enumerate(labels):
        (root / label).mkdir(parents=True)
        for i in range(6):
            image = random.integers(16 * c, 16 * c + 60, (9, 9), np.uint8)
            Image.fromarray(image).save(root / label / f"{i}.png")


def train(root, run):
    cli.main(["train", "--data", "folder", "--root", str(root), *FLAGS, "--out", run])


@pytest.mark.parametrize("parted", [False, True])
def test_it_trains_on_folders(tmp_path, monkeypatch, capsys, parted):
    monkeypatch.chdir(tmp_path)
    splits = ("train", "validation", "test") if parted else ("",)
    for split in splits:
        classes(tmp_path / "images" / split, [f"{split}{c}" for c in range(10)])
    train("images", "run")
    said = capsys.readouterr().out
    assert "accuracy with 95 % interval" in said and "pixel nearest" in said
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["learner"] == "protonet"
    assert (tmp_path / "run" / "episode.png").stat().st_size > 1000
    cli.main(["evaluate", "run"])
    assert "accuracy" in capsys.readouterr().out


def test_wrong_folders_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "validation", "test"):
        classes(tmp_path / split, ["cat", "dog"])
    for root, sentence in (
        (".", "2 classes are in train/ and in"),
        ("no", "no folder"),
    ):
        with pytest.raises(SystemExit):
            train(root, "run")
        assert sentence in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["train", "--data", "folder"])
    assert "folder: expected --root" in capsys.readouterr().err
