"""The command line, as a user runs it, with tiny networks."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from itertools import cycle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import AGENTS, CORE, row
from surroundings import shared

import jaxmeta as jm
from jaxmeta import cli, learners
from jaxmeta.cli import command, configs, recipes, run, session
from jaxmeta.cli.options import NAMES, Options
from jaxmeta.cli.sources import SOURCES
from jaxmeta.learners.registry import Facts
from jaxmeta.tasks.plain import task_shapes
from jaxmeta.training import log as logs

TINY = [
    *("--steps", "20", "--chunk", "5", "--tasks-per-step", "2", "--width", "4"),
    *("--test-tasks", "9", "--validation-tasks", "9", "--validate-every", "10"),
]
ENVIRONMENTS = [n for n, s in SOURCES.items() if s.kind == "reinforcement"]
# each agent, and each environment
AGENTS_AND_PROBLEMS = list(zip(cycle(AGENTS), ENVIRONMENTS, strict=False))
# few classes and queries: an episode is drawn image by image
EPISODES = ["--jitter", "0", "--ways", "3", "--queries", "2"]
IMAGES = ["--model", "mlp", *EPISODES]


class Asked:
    """`Networks` that only notes which ones a learner asks for."""

    facts, width = Facts(ways=5), 8

    def __init__(self):
        self.names = []

    def __getattr__(self, name):
        return lambda *sizes, **more: self.names.append(name)


def asked(entry) -> tuple[str, ...]:
    networks = Asked()
    entry.networks(networks)
    return tuple(networks.names)


def suitable(name):
    """Data set, network and sizes that compile fast; both kinds of problem in turn."""
    entry = learners.REGISTRY[name]
    sizes = {k: v for k, v in entry.tiny.items() if k not in (*NAMES, *Facts._fields)}
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in sizes.items()]
    if entry.acts:
        small = "--minibatches 1 --episodes 2 --arms 2 --pulls 3"
        return ["--data", "bandit", *small.split(), *flags]
    if entry.learns == ("recommendation",):
        return ["--data", "ratings", "--root", rated(), *flags]
    number = list(learners.REGISTRY).index(name)
    if entry.learns[number % len(entry.learns)] == "regression":
        return ["--data", "sinusoid", *flags]
    if "maps" in asked(entry):  # conv4's
        return [*EPISODES, *flags]
    return [*IMAGES, *flags]


def rated() -> str:
    """A folder of a few ratings, in the format of MovieLens-1M."""
    folder = Path("rated")
    folder.mkdir(exist_ok=True)
    users = [f"{u}::{'FM'[u % 2]}::25::{u % 21}::48067\n" for u in range(1, 31)]
    movies = [f"{m}::A film (2000)::Comedy\n" for m in range(1, 16)]
    ratings = [
        f"{u}::{m}::{1 + m % 5}::0\n" for u in range(1, 31) for m in range(1, 16)
    ]
    for name, lines in (("users", users), ("movies", movies), ("ratings", ratings)):
        (folder / f"{name}.dat").write_text("".join(lines), encoding="latin-1")
    return str(folder)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def covering() -> list[str]:
    """Few learners with which each network, each kind of training task and each use of
    unlabelled examples is seen once; of recommenders the cheapest, which has no network."""
    parts = {
        n: {*asked(e), f"on {e.trains_on}", f"unlabelled {e.unlabelled}"}
        if e.learns != ("recommendation",)
        else {"on ratings"}
        for n, e in learners.REGISTRY.items()
    }
    chosen, left = [], set().union(*parts.values())
    while left:
        chosen.append(max(parts, key=lambda n: len(parts[n] & left)))
        left -= parts[chosen[-1]]
    return chosen


@pytest.mark.parametrize("name", learners.REGISTRY)
def test_every_learner_is_built_from_names(name):
    kinds = learners.REGISTRY[name].learns
    one_each = {s.kind: s for s in SOURCES.values() if "root" not in s.options}
    for source in one_each.values():
        if source.kind not in kinds or learners.REGISTRY[name].acts:
            continue
        made = recipes.make(name, {}, Options(data=source.name, width=4))
        key = jax.random.key(0)
        params = jax.eval_shape(made.train.init, key)
        train, test = (task_shapes(made.samplers[s]) for s in ("train", "test"))
        objective = made.train.objective
        if objective is not None:
            value, _ = jax.eval_shape(objective, params, train, key, 0)
            assert value.shape == ()
        if objective is None or made.train is not made.test:
            assert jax.eval_shape(made.test.loss, params, test, key)[0].shape == ()


@pytest.mark.parametrize(("name", "source"), AGENTS_AND_PROBLEMS)
def test_every_agent_is_built_from_names(name, source):
    made = recipes.make(name, {}, Options(data=source, width=4))
    key = jax.random.key(0)
    state = jax.eval_shape(made.outer.init, key)
    after, told = jax.eval_shape(made.outer.step, state, None, key)
    assert told["return"].shape == () and told["skipped"].shape == ()
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


@pytest.mark.pictures
@pytest.mark.parametrize("name", [row(n, core=n in CORE) for n in covering()])
def test_every_kind_of_learner_trains_tests_and_draws(name, capsys):
    cli.main(["train", name, *suitable(name), "--out", "run", *TINY])
    said = capsys.readouterr().out
    assert "meta-test after 20 steps, 9 unseen tasks" in said
    acts = learners.REGISTRY[name].acts  # and tells what it earns all the time
    assert ("validation" in said) == (not acts) and "steps/s" in said
    left = {path.name for path in Path("run").iterdir()}
    assert left == {
        *("config.toml", "metrics.jsonl", "report.json", "report.md", "checkpoints"),
        *("learning_curve.png", "episode.png", "lock"),
    } | ({"best"} if not acts else set()) | ({"confusion.png"} & left)
    named = "classes" in json.loads(Path("run/report.json").read_text())
    assert named == ("confusion.png" in left)
    page = Path("run/report.md").read_text()
    assert all(word in page for word in ("95 % interval", "seed 0", "jaxlib", "MB"))
    report = json.loads(Path("run/report.json").read_text())
    assert report["num_tasks"] == 9 and report["baselines"]
    means = [v for said in report["baselines"].values() for v in said["mean"].values()]
    assert means and None not in means  # all are numbers
    first = said.split("95 % interval:\n")[1].split("run folder")[0].splitlines()

    content = Path("run/report.json").read_bytes()
    cli.main(["evaluate", "run"])  # again, to the same digits
    again = capsys.readouterr().out.split("95 % interval:\n")[1].splitlines()
    assert again == first and len(first) == 1 + len(report["baselines"])
    assert Path("run/report.json").read_bytes() == content


def test_a_problem_has_its_own_headline_and_ceiling(capsys):
    cli.main(["train", "cnp", "--data", "gaussian-process", "--out", "run", *TINY])
    said = capsys.readouterr().out
    assert "log likelihood with 95 % interval" in said
    assert "exact process (ceiling)" in said


def test_no_learner_means_the_one_that_suits_the_data():
    cli.main(["train", "--data", "sinusoid", *TINY, "--no-progress"])
    assert Path("runs/maml-sinusoid-seed0/report.json").exists()
    cli.main(["train", "--data", "sinusoid", *TINY, "--no-progress"])
    assert Path("runs/maml-sinusoid-seed0-2/report.json").exists()
    assert command._default_learner(["train"]) == "protonet"
    assert command._default_learner(["train", "--data=sinusoid"]) == "maml"


def test_a_flag_of_several_numbers_takes_numbers():
    kind = command._kind(learners.REGISTRY["mmd"], "squared_bandwidths")
    assert kind == tuple[float, ...]


@pytest.mark.parametrize("name", learners.REGISTRY)
def test_every_argument_is_a_flag_with_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", name, "--help"])
    assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    # from the model; a tree of arrays; a network
    known = {*Facts._fields, "frozen", "head"} - {"ways"}
    for argument in learners.REGISTRY[name].defaults.keys() - known:
        assert f"--{argument.replace('_', '-')}" in said
    assert learners.REGISTRY[name].paper in said


def test_list_shows_the_registries(capsys):
    cli.main(["list"])
    said = capsys.readouterr().out
    for name in (*learners.REGISTRY, *SOURCES, *jm.models.MODELS):
        assert name in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("train mamll", "unknown learner 'mamll': .*did you mean 'maml'"),
        ("trian maml", "unknown command 'trian': .*did you mean 'train'"),
        ("train maml --lr 0.1", "did you mean --learning-rate"),
        ("sweep protonett --over seed=1", "did you mean 'protonet'"),
        ("train maml --inner-step 3", "--inner-steps"),
        ("train maml --rule sgdd", "sgd"),
        ("train maml --data glyps", "unknown data set 'glyps'.*did you mean 'glyphs'"),
        ("train maml --model resnet", "unknown model 'resnet': expected one of conv4"),
        ("train protonet --data sinusoid", "protonet does not learn regression"),
        ("train cnp", "cnp does not learn classification"),
        ("train maml --train-ways 20", "leave --train-ways out"),
        ("train --ways 200", "ways: 200 classes wanted, glyphs/validation has 72"),
        ("train --shots 5 --queries 9", r"shots \+ queries: 5 \+ 9 .*has 8"),
        ("train --ways 1", "ways: expected a whole number >= 2, got 1"),
        ("train --data omniglot", "expected --root"),
        ("train melu --data ratings", "ratings: expected --root, a folder"),
        ("train maml --data ratings", "expected one of item_mean, melu, tanp"),
        ("train --data omniglot --root .", "no archive .*images_background.zip"),
        ("train --data sinusoid --model conv4", "has no images; expected mlp"),
        ("train --data gaussian-process --shots 3", "leave --shots out"),
        ("train --resume nowhere", "no run at nowhere"),
        ("evaluate nowhere", "no run at nowhere"),
        ("train --out occupied", "run folder occupied exists; nothing was changed"),
    ],
)
def test_wrong_use_gets_a_sentence_and_loses_nothing(words, sentence, capsys, folder):
    (folder / "occupied").mkdir()
    (folder / "occupied" / "precious").write_text("data")
    with pytest.raises(SystemExit) as stop:
        cli.main(words.split())
    captured = capsys.readouterr()
    said = " ".join((captured.out + captured.err).replace("│", " ").split())
    assert stop.value.code == 2
    import re

    assert re.search(sentence, said), said
    assert [p.name for p in folder.iterdir()] == ["occupied"]  # no run folder was left
    assert (folder / "occupied" / "precious").read_text() == "data"


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(capsys):
    """SIGKILL in the middle of training, then --resume."""
    flags = ["train", "maml", "--data", "sinusoid", *TINY, "--no-progress"]
    flags += ["--steps", "1000", "--save-every", "100", "--validate-every", "500"]
    cli.main([*flags, "--out", "whole"])
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxmeta", *flags, "--out", "killed"],
        env=os.environ | {"JAX_NUMPY_RANK_PROMOTION": "raise"},
    )
    metrics, deadline = Path("killed/metrics.jsonl"), time.time() + 120
    while time.time() < deadline and process.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= 50:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("killed/report.json").exists()  # it was killed before its end
    cli.main(["train", "--resume", "killed", "--no-progress"])

    def params(name):
        folder, config = run.open_run(Path(name))
        recipe = recipes.make(**configs.parts(config))
        state = session.stored(folder, recipe)
        assert int(state.step) == 1000
        return jax.tree.leaves(state)

    for a, b in zip(params("whole"), params("killed"), strict=True):
        np.testing.assert_array_equal(a, b)
    lines = logs.read(metrics)
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(5, 1001, 5))  # every chunk once
    reports = [
        json.loads(Path(f"{n}/report.json").read_text()) for n in ("whole", "killed")
    ]
    assert reports[0] == reports[1]


def test_a_run_that_is_done_is_tested_again_and_one_without_checkpoint_is_not(capsys):
    cli.main(["train", "maml", "--data", "sinusoid", "--out", "run", *TINY])
    capsys.readouterr()
    before = Path("run/metrics.jsonl").read_text()
    cli.main(["train", "--resume", "run"])
    assert "meta-test after 20 steps" in capsys.readouterr().out
    assert Path("run/metrics.jsonl").read_text() == before
    for path in sorted(Path("run/checkpoints").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "run"])
    assert "no checkpoint yet; go on with it" in capsys.readouterr().err
    Path("run/config.toml").write_text('learner = "maml"')
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "run"])
    assert "config.toml lacks 'options'" in capsys.readouterr().err


@pytest.mark.slow
def test_omniglot_trains_from_the_command_line(capsys, monkeypatch):
    module = sys.modules[jm.data.omniglot.__module__]
    monkeypatch.setattr(module, "_read", functools.cache(module._read))  # each once
    root = str(shared("data/omniglot"))
    cli.main(["train", "--data", "omniglot", "--root", root, *TINY, *IMAGES])
    assert "pixel nearest neighbour" in capsys.readouterr().out


def test_run_folders_are_never_overwritten(tmp_path):
    made = run.create(tmp_path / "a", {"seed": 1})
    made_with = run.open_run(tmp_path / "a")[1]["made_with"]
    assert {"jax", "python", "device", "date"} <= made_with.keys()
    with pytest.raises(FileExistsError, match="exists; nothing was changed.*--resume"):
        run.create(tmp_path / "a", {"seed": 2})
    assert tomllib.loads(made.config.read_text())["seed"] == 1
    assert run.free_name(tmp_path / "a") == tmp_path / "a-2"
    with pytest.raises(FileNotFoundError, match="no run at"):
        run.open_run(tmp_path / "b")
    made.config.write_text("[")
    with pytest.raises(ValueError, match="can't be read"):
        run.open_run(tmp_path / "a")


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="can't be written .*choose another with --out"):
        run.create(tmp_path / "file" / "run", {})

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", forbidden)
    with pytest.raises(
        PermissionError, match=r"can't be written \(Permission denied\)"
    ):
        run.create(tmp_path / "run", {})
