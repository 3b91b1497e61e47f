"""From a labelled to an unlabelled domain, from the shell."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta import cli
from jaxmeta.cli import recipes
from jaxmeta.cli.options import Options
from jaxmeta.cli.sources import SOURCES

FLAGS = "--steps 2 --chunk 2 --tasks-per-step 2 --width 4 --test-tasks 4 --shots 1"
FLAGS = f"{FLAGS} --unlabelled 1 --queries 2 --validation-tasks 5 --no-progress".split()


def test_it_trains_on_pairs_of_domains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(
        ["train", "--data", "digits", *FLAGS, "--inner-steps", "1", "--out", "run"]
    )
    said = capsys.readouterr().out
    assert "accuracy with 95 % interval" in said
    assert "source only" in said and "pixel nearest neighbour" in said
    report = json.loads(Path("run/report.json").read_text())
    assert set(report["baselines"]) == {"source only", "pixel nearest neighbour"}
    assert Path("run/config.toml").read_text().count('"dann"') == 1
    assert Path("run/episode.png").stat().st_size > 1000


def test_no_label_of_the_target_is_trained_on():
    """Neither a target digit nor its label: all that training draws is the source's."""
    samplers = SOURCES["digits"].samplers(Options(shots=2, unlabelled=3, queries=4))
    train, target = samplers["episodes"].examples.x, samplers["test"].target.x
    assert samplers["validation"] is samplers["episodes"]
    assert len(train) == 1000 and len(target) == 797
    task = jax.jit(samplers["test"].sample)(jax.random.key(0))
    assert task.support.x.shape == (50, 8, 8, 1) and task.query.x.shape[0] == 40
    assert (np.asarray(task.support.y) == -1).sum() == 30
    turned = jm.data.digits("test").x
    assert np.abs(turned - np.asarray(target)).max() > 0.5


@pytest.mark.parametrize("name", ["soft_kmeans", "deep_coral"])
def test_what_uses_unlabelled_examples_is_built(name):
    made = recipes.make(name, {}, Options(data="digits", width=4))
    task = jax.eval_shape(made.samplers["test"].sample, jax.random.key(0))
    params = jax.eval_shape(made.test.init, jax.random.key(0))
    assert jax.eval_shape(made.test.loss, params, task)[0].shape == ()
    assert task.support.y.shape == (200,)


def test_others_are_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "protonet", "--data", "digits"])
    said = " ".join(capsys.readouterr().err.split())
    assert "protonet makes no use of unlabelled examples and digits has them" in said
    assert "dann" in said.split("expected one of")[1]


def test_without_scikit_learn_a_sentence_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SystemExit):
        cli.main(["train", "--data", "digits"])
    assert "pip install 'jaxmeta[digits]'" in capsys.readouterr().err


def test_digits_are_those_of_scikit_learn():
    whole, first, last = map(jm.data.digits, ("all", "train", "test"))
    assert (first.counts + last.counts == whole.counts).all() and len(whole.x) == 1797
    assert whole.classes == tuple("0123456789")
    assert whole.x.dtype == np.float32 and (whole.x.min(), whole.x.max()) == (0, 1)
    with pytest.raises(ValueError, match="split: expected one of all, train, test"):
        jm.data.digits("validation")
