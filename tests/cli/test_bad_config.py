"""Wrong flags and configs end with a sentence that names the option, and exit code 2."""

import math
import re
from dataclasses import fields
from pathlib import Path

import pytest
import tomli_w

from jaxmeta import cli, learners
from jaxmeta.cli import command
from jaxmeta.cli.options import Options

NAN, INF = math.nan, math.inf
STRANGE = [NAN, INF, -1, True, "x", [], {}, [1, 2]]
WRONG = {
    "text": [5, 1.5, True, [], {}, NAN],
    "flag": ["x", 0, 1, NAN, [], "true"],
    "number": STRANGE,
    "size": [*STRANGE, 1.5, 0, 2.0],
}
KINDS = {
    "data": "text",
    "tested": "text",
    "train_split": "text",
    "model": "text",
    "root": "text",
}
KINDS |= dict.fromkeys(("rotations", "within_groups", "strided"), "flag")
KINDS |= dict.fromkeys(("jitter", "learning_rate"), "number")
FROM_ZERO = {"unlabelled", "distractors", "seed"}
# what its owner says of numbers in a learner's place
LEARNERS = {"maml": "sinusoid", "cavia": "sinusoid", "reptile": "sinusoid"}
LEARNERS |= {"r2d2": "sinusoid", "learned_optimizer": "sinusoid"}
LEARNERS |= {"cnp": "gaussian-process", "tnpd": "gaussian-process"}


def config(learner="maml", arguments=None, **options):
    every = {"data": "sinusoid"} | options
    return {"learner": learner, "arguments": arguments or {}, "options": every}


def refusal(tmp_path, content) -> str:
    """What `jaxmeta evaluate` says of a run with this config."""
    given = content if isinstance(content, bytes) else tomli_w.dumps(content).encode()
    (tmp_path / "config.toml").write_bytes(given)
    with pytest.raises(ValueError) as caught:
        command.evaluate(command.Evaluate(tmp_path))
    assert type(caught.value) is ValueError, caught.value
    return str(caught.value)


@pytest.mark.parametrize("option", [f.name for f in fields(Options)])
def test_an_option_of_another_type_or_range_is_named(option, tmp_path):
    for value in WRONG[KINDS.get(option, "size")]:
        if value == 0 and value is not False and option in FROM_ZERO:
            continue
        said = refusal(tmp_path, config(**{option: value}))
        assert re.search(rf"\b{option}\b|unknown data set", said), (value, said)
        assert "expected" in said


@pytest.mark.parametrize("name", LEARNERS)
def test_an_argument_of_another_type_is_named(name, tmp_path):
    for argument, default in learners.REGISTRY[name].defaults.items():
        if argument in ("ways", "features", "x_dims", "y_dims", "length", "width"):
            continue  # from the data and the models
        for value in (NAN, True, "x", [1], {}):
            if isinstance(default, bool) and value is True:
                continue
            given = config(name, {argument: value}, data=LEARNERS[name])
            said = refusal(tmp_path, given)
            assert re.search(rf"\b{argument}\b", said), (argument, value, said)
            assert "expected" in said


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[", "can't be read"),
        (b"\xff{", "can't be read"),
        ({}, "lacks"),
        (config() | {"learner": 5}, "unknown learner 5: expected one of"),
        (config() | {"learner": ["maml"]}, r"unknown learner \['maml'\]"),
        (config() | {"options": []}, "options: expected a table"),
        (config() | {"arguments": "x"}, "arguments: expected a table"),
        (config(arguments={"inner_step": 3}), "inner_step: maml has no such argument"),
        (config(arguments={"model": 3}), "model: maml has no such argument"),
        (config(colour=3), "unknown options: .*colour"),
        (config(data="glyps"), "did you mean 'glyphs'"),
    ],
)
def test_a_config_of_another_form(content, sentence, tmp_path):
    assert re.search(sentence, refusal(tmp_path, content))


FLAGS = [
    *("--steps 0", "--steps -5", "--steps 1.5", "--width 0", "--width nan"),
    *("--tasks-per-step 0", "--tasks-at-once 0", "--chunk 0", "--seed -1"),
    *("--validate-every 0", "--save-every 0", "--test-tasks 1", "--test-tasks 0"),
    *("--validation-tasks 0", "--learning-rate nan", "--learning-rate 0"),
    *("--learning-rate -1", "--shots 0", "--queries 0", "--inner-lr nan"),
    *("--inner-lr inf", "--inner-lr -1", "--inner-steps -1", "--inner-steps 1.5"),
    *("--jitter nan", "--jitter -1", "--ways 1", "--ways x", "--seed 4294967296"),
]


@pytest.mark.parametrize("flag", FLAGS)
def test_a_wrong_flag_is_named_and_leaves_nothing(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "maml", "--data", "sinusoid", *flag.split()])
    captured = capsys.readouterr()
    said = (captured.out + captured.err).replace("_", "-")
    assert stop.value.code == 2 and flag.split()[0].strip("-") in said
    assert "Traceback" not in said and not [*Path().iterdir()]


@pytest.mark.parametrize("flag", ["--test-tasks 0", "--test-tasks 1", "--seed -1"])
def test_a_wrong_flag_of_evaluate(flag, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", str(tmp_path), *flag.split()])
    said = capsys.readouterr().err.replace("_", "-")
    assert (
        stop.value.code == 2
        and f"error: {flag.split()[0].strip('-')}: expected" in said
    )
