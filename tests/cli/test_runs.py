"""What a run survives, and what it gives back: through the commands."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from surroundings import xla_flags

import jaxmeta as jm
from jaxmeta import cli
from jaxmeta.cli import command, configs, run, session
from jaxmeta.cli.sweep import points
from jaxmeta.training import log as logs

SMALL = [
    *(
        "--chunk",
        "5",
        "--tasks-per-step",
        "2",
        "--width",
        "4",
        "--validate-every",
        "10",
    ),
    *("--test-tasks", "9", "--validation-tasks", "9", "--no-progress"),
]
SINES = ["train", "maml", "--data", "sinusoid", *SMALL]
OTHER = [*SINES, "--inner-lr", "0.02", "--shots", "3"]  # a program that tests share
LETTERS = ["train", "protonet", "--model", "mlp", "--jitter", "0", *SMALL]
LETTERS += ["--ways", "3", "--queries", "2"]  # an episode is drawn image by image


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(words: str, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(words.split())
    assert stop.value.code == 2
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).replace("│", " ").split())


def installed(words: str, **environment: str) -> str:
    """What the installed command prints."""
    command = Path(sys.executable).with_name("jaxmeta")
    done = subprocess.run(
        [command, *words.split()],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert not done.returncode, done.stderr
    return done.stdout


def leaves(name):
    return jax.device_get(jax.tree.leaves(jm.load(name).state))


def same(a, b) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, a, b))


def test_a_run_is_extended_and_refuses_what_would_change_it(capsys):
    cli.main([*SINES, "--steps", "20", "--out", "whole"])
    cli.main([*SINES, "--steps", "10", "--out", "short"])
    cli.main(["train", "--resume", "short", "--steps", "20", "--no-progress"])
    assert same(leaves("short"), leaves("whole"))
    assert run.open_run("short")[1]["options"]["steps"] == 20
    steps = [
        line["step"] for line in logs.read("short/metrics.jsonl") if "loss" in line
    ]
    assert steps == [5, 10, 15, 20]
    for words in ("--seed 3", "--inner-lr=0.5", "--out elsewhere"):
        said = refused(f"train --resume short {words}", capsys)
        assert words.split()[0].split("=")[0].strip("-") in said
    assert "of maml; leave the name out" in refused(
        "train protonet --resume short", capsys
    )
    with run.Run("short").writing():  # as another process that trains it
        assert "another process is training" in refused("train --resume short", capsys)
        before = Path("short/report.json").read_bytes()
        cli.main(["evaluate", "short", "--seed", "7", "--test-tasks", "30"])  # a look
        assert "30 unseen tasks" in capsys.readouterr().out
        assert Path("short/report.json").read_bytes() == before
    assert not run.Run("short").busy

    config = Path("short/config.toml")
    config.write_text(config.read_text().replace("seed = 0", "seed = 4"))
    assert "another run's: seed was 0" in refused("train --resume short", capsys)


def test_a_config_is_a_command(capsys):
    cli.main([*OTHER, "--steps", "10", "--out", "one"])
    cli.main(["train", "--config", "one/config.toml", "--no-progress", "--out", "two"])
    assert same(leaves("one"), leaves("two"))
    asked = [run.open_run(name)[1] for name in ("one", "two")]
    assert all(asked[0][k] == asked[1][k] for k in ("learner", "arguments", "options"))
    cli.main(
        [
            "train",
            "--config=one/config.toml",
            "--seed",
            "7",
            "--out",
            "three",
            "--steps=5",
        ]
    )
    other = run.open_run("three")[1]
    assert other["options"]["seed"] == 7 and other["options"]["shots"] == 3
    assert other["arguments"]["inner_lr"] == 0.02
    assert "config: one/config.toml is of maml" in refused(
        "train protonet --config one/config.toml", capsys
    )


def test_what_is_loaded_gives_the_reports_digits():
    cli.main([*LETTERS, "--steps", "10", "--out", "run"])
    program = (
        "import jaxmeta as jm; r = jm.load('run'); print(repr(r.evaluate().mean)); "
        "print(jm.evaluate(r.learner, r.params, r.samplers['test'], num_tasks=9,"
        " key=jm.load('run').key).mean == r.evaluate().mean)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    mean, alike = done.stdout.splitlines()
    assert eval(mean) == json.loads(Path("run/report.json").read_text())["mean"]
    assert alike == "True"


def test_runs_are_compared_task_by_task(capsys):
    for seed in ("0", "1"):
        cli.main([*SINES, "--steps", "10", "--seed", seed, "--out", f"run{seed}"])
    cli.main([*OTHER, "--steps", "10", "--out", "other"])
    nearby = ["train", "cnp", "--data", "sinusoid", *SMALL, "--steps", "10"]
    cli.main([*nearby, "--out", "cnp"])
    said = installed("compare run0 run1")
    assert "same 9 tasks" in said and "all 2 of them" in said
    first, second = (jm.load(f"run{i}").evaluate(9, 0).per_task["loss"] for i in (0, 1))
    difference = f"{np.mean(second - first):.4f}"
    assert difference in said
    capsys.readouterr()
    assert "shots" in refused("compare run0 other", capsys)
    cli.main(
        ["compare", "run0", "cnp"]
    )  # its loss is no squared error: its mse is taken
    mse = jm.load("cnp").evaluate(9, 0).mean["mse"]
    assert f"{mse:.4f}" in capsys.readouterr().out
    cli.main(["compare", "run0", "run0"])  # is no second seed
    assert "of them" not in capsys.readouterr().out
    assert "expected at least two" in refused("compare run0", capsys)


def test_a_sweep_is_its_runs(capsys):
    over = ["--over", "inner-lr=0.1,0.01", "seed=0,1"]
    flags = [f for f in SINES[2:] if f not in ("--no-progress",)]
    words = " ".join(["sweep maml", *flags, "--steps 10", *over, "--out grid"])
    assert "training 4 of 4 runs" in installed(words)  # one program
    found = json.loads(Path("grid/sweep.json").read_text())
    assert [row["seeds"] for row in found["rows"]] == [[0, 1], [0, 1]]
    worth = [row["validation"]["mean"]["loss"] for row in found["rows"]]
    assert worth == sorted(worth)
    (row,) = (r for r in found["rows"] if r["values"] == {"inner_lr": 0.01})
    each = []
    for seed in ("0", "1"):
        one = [
            "--steps",
            "10",
            "--seed",
            seed,
            "--inner-lr",
            "0.01",
            "--out",
            f"s{seed}",
        ]
        cli.main([*SINES, *one])
        each.append(jm.load(f"s{seed}").evaluate().mean["loss"])
    assert np.mean(each) == pytest.approx(row["test"]["mean"]["loss"], rel=1e-4)
    assert "is no flag of this learner" in refused("sweep maml --over colour=1", capsys)
    assert "can't be swept" in refused("sweep maml --over data=glyphs", capsys)
    assert "leave them out" in refused(
        "sweep maml --data sinusoid --patience 2 --over seed=1", capsys
    )
    for wrong, sentence in (("seed", "expected name=value"), ("seed=1,1", "twice")):
        with pytest.raises(ValueError, match=sentence):
            points([wrong])


@pytest.mark.pictures
def test_a_run_is_tested_along_one_number(capsys):
    cli.main([*SINES, "--steps", "10", "--out", "run"])
    capsys.readouterr()
    cli.main(["curve", "run", "--over", "inner-steps=0,1,4"])
    said = capsys.readouterr().out
    run = jm.load("run")
    own = [run.evaluate(inner_steps=n).mean["loss"] for n in (0, 1, 4)]
    assert all(f"{mean:.4f}" in said for mean in own) and own[2] < own[1] < own[0]
    assert own[1] == run.evaluate().mean["loss"]
    assert Path("run/by_inner_steps.png").stat().st_size > 1000
    assert "is no flag" in refused("curve run --over colour=1", capsys)
    assert "parameters have other shapes with width=5" in refused(
        "curve run --over width=5", capsys
    )


def test_a_run_on_two_devices_goes_on_with_one(capsys):
    tree = [*SINES, "--reduce", "tree", "--tasks-at-once", "1"]
    cli.main([*tree, "--steps", "15", "--out", "one"])
    words = " ".join([*tree, "--steps 10", "--devices 2", "--out two"])
    # a process of its own, whose CPU is two devices
    installed(words, XLA_FLAGS=xla_flags(without="device_count"))
    cli.main(["train", "--resume", "two", "--steps", "15", "--no-progress"])
    for a, b in zip(leaves("one"), leaves("two"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert "expected a multiple of 2" in refused(
        " ".join([*SINES, "--tasks-per-step 3", "--devices 2"]), capsys
    )
    assert "devices: there are" in refused(f"{' '.join(SINES)} --devices 99", capsys)
    assert "leave --devices out" in refused("train --data bandit --devices 2", capsys)
    assert not Path("runs").exists()


def test_a_folder_is_labelled(folder, capsys):
    cli.main([*LETTERS, "--steps", "10", "--out", "run"])
    random = np.random.default_rng(0)
    ink = {"dot": np.zeros((28, 28)), "bar": np.zeros((28, 28))}
    ink["dot"][10:18, 10:18], ink["bar"][:, 12:16] = 255, 255
    for name, image in ink.items():
        for i in range(4):
            noisy = np.clip(image + random.normal(0, 10, image.shape), 0, 255)
            place = folder / ("known" if i < 2 else "new") / (name if i < 2 else "")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy.astype(np.uint8)).save(place / f"{name}{i}.png")
    assert "4 images in 2 classes" in installed(
        "predict run --support known --query new"
    )
    rows = list(csv.DictReader(Path("labels.csv").read_text().splitlines()))
    assert [r["file"] for r in rows] == ["bar2.png", "bar3.png", "dot2.png", "dot3.png"]
    assert [r["label"] for r in rows] == ["bar", "bar", "dot", "dot"]
    assert all(
        float(r["bar"]) + float(r["dot"]) == pytest.approx(1, abs=1e-3) for r in rows
    )
    words = "predict run --support known --query new"
    assert "labels.csv exists; nothing was changed" in refused(words, capsys)
    (folder / "empty").mkdir()
    assert "has no image" in refused(
        "predict run --support known --query empty --out x.csv", capsys
    )
    cli.main([*SINES, "--steps", "5", "--out", "sines"])
    assert "was not trained on images" in refused(
        "predict sines --support known --query new --out x.csv", capsys
    )
    config = Path("run/config.toml")
    config.write_text(
        config.read_text().replace("[options]", "[options]\nrotations = true")
    )
    words = configs.spelled(["train", "--config", "run/config.toml"])
    assert command._read(words).rotations


def test_a_step_is_played_again(capsys):
    cli.main([*SINES, "--steps", "20", "--save-every", "10", "--out", "run"])
    said = installed("replay run 12")
    assert "training from step 10 to step 12 again" in said and "all are finite" in said
    losses = [float(v) for v in re.findall(r"│ \d +│ ([\d.]+) ", said)]
    cli.main([*SINES, "--steps", "12", "--out", "again"])
    cli.main(["train", "--resume", "again", "--steps", "13", "--no-progress"])
    line = next(x for x in logs.read("again/metrics.jsonl") if x["step"] == 13)
    assert np.mean(losses) == pytest.approx(line["loss"], rel=1e-4)
    assert "step: the run has done 20, from 0 to 19; got 20" in refused(
        "replay run 20", capsys
    )


def begun(out: Path, *flags: str) -> subprocess.Popen:
    """A long run in another process, after some chunks."""
    command = [sys.executable, "-m", "jaxmeta", *SINES, *flags, "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None:
        if (out / "metrics.jsonl").exists() and len(
            logs.read(out / "metrics.jsonl")
        ) > 5:
            return process
        time.sleep(0.01)
    raise AssertionError(process.stderr and process.stderr.read())


@pytest.mark.slow
def test_ctrl_c_once_saves_twice_stops_at_once(capsys):
    """And in between, another process does not write the same run."""
    flags = [
        "--steps",
        "100000",
        "--save-every",
        "100000",
        "--validate-every",
        "100000",
    ]
    process = begun(Path("run"), *flags)
    process.send_signal(signal.SIGSTOP)  # few steps, which are done again below
    try:
        said = refused("train --resume run", capsys)
        process.send_signal(signal.SIGINT)
    finally:
        process.send_signal(signal.SIGCONT)
    assert "another process is training run" in said
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "all saved; go on with" in said
    saved = int(re.search(r"stopped at step (\d+)", said)[1])
    assert (
        int(jm.load("run").state.step)
        == saved
        == logs.read("run/metrics.jsonl")[-1]["step"]
    )
    cli.main([*SINES, "--steps", str(saved), "--out", "whole"])
    assert same(leaves("run"), leaves("whole"))

    process = subprocess.Popen(
        [sys.executable, "-m", "jaxmeta", "train", "--resume", "run"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    deadline = time.time() + 60
    while (
        time.time() < deadline and len(logs.read("run/metrics.jsonl")) < saved / 5 + 3
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert same(leaves("run"), leaves("whole")) or "all saved" in said


def test_metrics_are_valid_json_and_a_broken_line_costs_that_line(folder):
    path = folder / "metrics.jsonl"
    with jm.Log(path) as log:
        log.chunk(10, {"loss": np.array([np.nan, 1.0])}, 1.0)
    with path.open("a") as file:
        file.write('{"step": 20, "loss": 1.0}\n{"step": 3')  # a crash
    with jm.Log(path, start=10) as log:
        log.chunk(20, {"loss": np.array([2.0])}, 1.0)
    for line in path.read_text().splitlines():
        if line != '{"step": 3':
            json.loads(line, parse_constant=lambda c: pytest.fail(c))
    lines = logs.read(path)
    assert [(x["step"], x["loss"]) for x in lines[1:]] == [(20, 2.0)]
    assert lines[0]["step"] == 10 and np.isnan(lines[0]["loss"])


def test_a_file_is_written_whole_or_not_at_all(folder, monkeypatch):
    path = folder / "report.json"
    run.written(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        run.written(path, "new")
    assert path.read_text() == "old" and [p.name for p in folder.iterdir()] == [
        path.name
    ]


def test_a_folder_that_a_kill_left_half_made_is_taken(folder):
    (folder / "run").mkdir()
    (folder / "run" / ".config.toml.123").write_text("lear")
    made = run.create(folder / "run", {"learner": "maml"})
    assert run.open_run(made.folder)[1]["learner"] == "maml"
    assert run.free_name(folder / "run").name == "run-2"


def test_two_processes_never_share_a_folder(folder, monkeypatch):
    """The second is there while the first looks at what it is made with."""
    slow, made = run.environment, []

    def environment():
        if not made:
            made.append("second")
            made.append(run.create(folder / "run", {"learner": "cnp"}))
        return slow()

    monkeypatch.setattr(run, "environment", environment)
    with pytest.raises(FileExistsError, match="exists; nothing was changed"):
        run.create(folder / "run", {"learner": "maml"})
    assert run.open_run(folder / "run")[1]["learner"] == "cnp"


def test_tensorboard_gets_the_same_numbers(folder, monkeypatch):
    cli.main([*SINES, "--steps", "10", "--tensorboard", "--out", "run"])
    (events,) = (folder / "run" / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"validation_loss" in content and b"steps_per_second" in content
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ModuleNotFoundError, match="needs tensorboardX; pip install"):
        jm.Log(None, tensorboard=folder / "board")


def test_a_log_that_is_no_terminal_has_lines(capsys):
    cli.main(
        [f for f in [*SINES, "--steps", "10", "--out", "run"] if f != "--no-progress"]
    )
    said = capsys.readouterr().out
    assert "compiling" in said and re.search(
        r"step 10/10  loss .* steps/s  0 s left", said
    )
    assert session.SAVE_SECONDS == 60


def test_the_version(capsys):
    cli.main(["--version"])
    assert re.fullmatch(r"jaxmeta \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_the_best_state_is_kept_and_tested(capsys):
    flags = [
        "--steps",
        "200",
        "--learning-rate",
        "1",
        "--patience",
        "2",
        "--tested",
        "best",
    ]
    cli.main([*SINES, *flags, "--out", "run"])
    lines = [x for x in logs.read("run/metrics.jsonl") if "validation_loss" in x]
    best = min(lines, key=lambda x: x["validation_loss"])
    assert [x["step"] for x in lines][-1] == best["step"] + 20 < 200  # it waited twice
    assert int(jm.load("run").state.step) == best["step"]
    assert f"meta-test after {best['step']} steps" in capsys.readouterr().out
    cli.main(["train", "--resume", "run", "--no-progress"])  # is at its end
    again = [x for x in logs.read("run/metrics.jsonl") if "validation_loss" in x]
    assert again == lines
    assert "training had ended at step" in capsys.readouterr().out
    said = refused("train --resume run --steps 5", capsys)
    assert f"steps: the run has done {lines[-1]['step']}" in said
    for path in sorted(Path("run/best").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    cli.main(["evaluate", "run"])
    assert "no validation was the best: the last" in capsys.readouterr().out
    assert "nothing is validated" in refused(
        "train rl2 --data bandit --patience 2", capsys
    )
