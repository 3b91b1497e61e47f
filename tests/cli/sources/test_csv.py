"""A table of the user's from the shell."""

import numpy as np
import pytest

from jaxmeta import cli

FLAGS = "--steps 20 --chunk 5 --tasks-per-step 2 --width 4 --test-tasks 20 --ways 2"
FLAGS = f"{FLAGS} --validation-tasks 5 --no-progress".split()


@pytest.mark.pictures
def test_it_trains_on_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = [
        (c, *random.normal(c, 0.1, 3).round(3)) for c in range(12) for _ in range(7)
    ]
    text = "\n".join(",".join(map(str, row)) for row in [("label", *"abc"), *rows])
    (tmp_path / "rows.csv").write_text(text)
    cli.main(["train", "--data", "csv", "--root", "rows.csv", *FLAGS, "--out", "run"])
    said = capsys.readouterr().out
    assert "accuracy with 95 % interval" in said and "nearest neighbour" in said
    assert (tmp_path / "run" / "episode.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a,b\n1,2\n", "no column 'label'"), ("label,a\n1,x\n", "no other column of")],
)
def test_wrong_tables_are_said(tmp_path, monkeypatch, capsys, text, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(SystemExit):
        cli.main(["train", "--data", "csv", "--root", "rows.csv", *FLAGS])
    assert sentence in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        cli.main(["train", "--data", "csv"])
    assert "csv: expected --root" in capsys.readouterr().err
