"""Notebooks, benchmarks and the README: every example runs."""

import dataclasses
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta import cli, learners

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "jupyter",
            "execute",
            f"--output={tmp_path / path.name}",
            path,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "MPLBACKEND"},  # inline
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / path.name).read_text())["cells"]
    pictures = [o for c in cells for o in c.get("outputs", ()) if "data" in o]
    assert len(pictures) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(path):
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs") and not cell.get("execution_count")


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """Import a benchmark; its results go to a folder of the test."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    report = importlib.import_module("report")
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    return importlib.import_module


@pytest.mark.slow
def test_sinusoid_benchmark(benchmark, tmp_path, capsys):
    module = benchmark("sinusoid")
    module.main(
        module.Config(seeds=(0,), steps=3000, test_tasks=200, fine_tuning=(0.01,))
    )
    results = json.loads((tmp_path / "sinusoid.json").read_text())
    assert np.shape(results["MAML"]) == (1, 3)
    assert results["MAML"][0][2] < results["MAML"][0][0]  # more steps, less error
    assert (tmp_path / "sinusoid.png").exists()
    assert "| MAML, published | 0.67 | 0.38 | 0.35 |" in capsys.readouterr().out


@pytest.mark.slow
def test_neural_process_benchmark(benchmark, tmp_path, capsys):
    module = benchmark("neural_process")
    config = module.Config(
        learners=("cnp",), steps=400, evaluations=2, width=16, test_tasks=200
    )
    module.main(config)
    (run,) = json.loads((tmp_path / "neural_process_cnp_400.json").read_text())["runs"]
    assert run["log_likelihood"][0] < run["log_likelihood"][1] < run["exact"]
    assert (tmp_path / "neural_process_400.png").exists()
    assert "exact process, a ceiling" in capsys.readouterr().out
    # the picture has other calls' runs, those of as many steps
    for stem in ("anp_400", "tnpd_800"):
        kept = json.dumps({"runs": [run]})
        (tmp_path / f"neural_process_{stem}.json").write_text(kept)
    assert set(module.stored(400)) == {"cnp", "anp"}


def test_neural_process_benchmark_builds_every_row(benchmark):
    module, task = benchmark("neural_process"), jm.tasks.gaussian_process()
    shapes = jax.eval_shape(task.sample, jax.random.key(0))
    for name in module.PUBLISHED:
        learner = module.make(name, 16)
        params = jax.eval_shape(learner.init, jax.random.key(0))
        losses = [learner.loss]
        if learner.objective is not None:
            losses.append(partial(learner.objective, step=0))
        for loss in losses:
            found = jax.eval_shape(loss, params, shapes, key=jax.random.key(1))
            assert found[0].shape == ()


def drawings(characters=24, alphabets=1):
    """A data set of noise, shaped like Omniglot."""
    images = np.random.default_rng(0).random((characters, 20, 28, 28, 1), np.float32)
    flat = images.reshape(-1, 28, 28, 1)
    data = jm.data.from_arrays(flat, np.repeat(range(characters), 20))
    groups = tuple(f"alphabet {i % alphabets}" for i in range(characters))
    return dataclasses.replace(data, groups=groups)


@pytest.mark.slow
def test_omniglot_families_benchmark(benchmark):
    module = benchmark("omniglot_families")
    config = module.Config(columns=((5, 1),), steps=2, test_tasks=4)
    for name, steps in {"pixels": 0, "versa": 2}.items():
        (result,) = module.run(jax.random.key(0), name, config, (drawings(),) * 2)
        assert 0 <= result["accuracy"] <= 100 and result["steps"] == steps
    for name, e in module.EXPERIMENTS.items():
        for ways, shots in module.COLUMNS:
            learner = module.build(name, e.train_ways or ways, shots)
            jax.eval_shape(learner.init, jax.random.key(0))


def test_mann_benchmark(benchmark, tmp_path, capsys):
    module, data = benchmark("mann"), drawings()
    config = module.Config(
        folder=tmp_path / "run", steps=2, every=1, tasks_per_step=2, curve_tasks=2,
        test_tasks=2, sequences=1,
    )  # fmt: skip
    module.run(config, data, data)
    kept = json.loads((tmp_path / "mann_5way.json").read_text())
    assert [point["step"] for point in kept["curve"]] == [1, 2]
    assert len(kept["presentations"]) == 9 and "| 2 |" in capsys.readouterr().out
    # whoever knows a class again foretells each example of it but the first
    images = np.broadcast_to(np.asarray(data.images)[:, :1], data.images.shape)
    same = dataclasses.replace(data, images=images)
    nearest = jm.nearest_neighbour(ways=5)
    found = module.presentations(nearest, (), same, config, jax.random.key(0))
    assert found == [100.0] * 9


@pytest.mark.slow
def test_omniglot_challenge_benchmark(benchmark):
    module = benchmark("omniglot_challenge")
    config = module.Config(
        models=2, steps=2, train_ways=4, width=4, looks=(2, 1), test_tasks=4
    )
    rows = module.run(jax.random.key(0), "small1", config, (drawings(),) * 2)
    assert [row["method"] for row in rows] == [
        *("pixels, nearest neighbour", "protonet", "protonet, many looks"),
        *("2 protonets", "2 protonets, many looks", "2 pt_maps (transductive)"),
    ]
    assert all(0 <= row["error"] <= 100 for row in rows)


@pytest.mark.parametrize("name", ["maml", "reptile"])
def test_omniglot_benchmark(benchmark, name):
    module = benchmark("omniglot")
    config = module.Config(fraction=3e-5, test_tasks=4)
    images = np.random.default_rng(0).random((10, 20, 28, 28, 1), np.float32)
    data = jm.data.from_arrays(images.reshape(200, 28, 28, 1), np.repeat(range(10), 20))
    result = module.run(jax.random.key(0), name, config, (data, data))
    assert 0 <= result["accuracy"] <= 100 and result["steps"] in (2, 3)


def test_omniglot_benchmark_builds_every_row(benchmark):
    module = benchmark("omniglot")
    assert {ways for _, ways in module.EXPERIMENTS} == {5, 20}
    for (_, ways), e in module.EXPERIMENTS.items():
        for learner in module.learners(e, ways, steps=100):
            jax.eval_shape(learner.init, jax.random.key(0))
        e.outer(module.rate(e, 100, 0.5))


@pytest.mark.slow
def test_cavia_benchmark(benchmark, capsys):
    module = benchmark("cavia")
    module.main(module.Config(columns=(0, 2), seeds=(0,), steps=1000, test_tasks=100))
    said = capsys.readouterr().out
    assert "| CAVIA, ours | - | " in said
    assert "| MAML, published (from memory) | 0.33 | 0.24 |" in said


@pytest.mark.slow
def test_meta_sgd_benchmark(benchmark, tmp_path):
    module = benchmark("meta_sgd")
    module.main(module.Config(seeds=(0,), steps=1000, test_tasks=100))
    results = json.loads((tmp_path / "meta_sgd.json").read_text())
    ratio = results["Meta-SGD"][0][0] / results["MAML"][0][0]
    np.testing.assert_allclose(results["ratio"][0], ratio)


@pytest.mark.slow
def test_learned_optimizer_benchmark(benchmark, tmp_path):
    module = benchmark("learned_optimizer")
    config = module.Config(
        ("quadratics",), seeds=(0,), horizon=5, steps=3, test_tasks=8, rates=3
    )
    module.main(config)
    saved = json.loads((tmp_path / "learned_optimizer_quadratics.json").read_text())
    (curves,) = saved["runs"]
    starts = [values[0] for values in curves.values()]
    np.testing.assert_allclose(starts, starts[0], rtol=1e-5)  # the same problems
    assert len(curves) == 5 and {len(values) for values in curves.values()} == {6}
    assert (tmp_path / "learned_optimizer_quadratics.png").exists()


@pytest.mark.slow
def test_imaml_benchmark(benchmark, tmp_path):
    module = benchmark("imaml")
    config = module.Config(
        seeds=(0,), steps=(200,), iterations=(1, 50), dimensions=8, examples=6,
        memory_steps=(), repeats=1,
    )  # fmt: skip
    module.main(config)
    rows = json.loads((tmp_path / "imaml.json").read_text())["errors"]
    error = {r["adjoint"]: float(r["200 steps"].split()[0]) for r in rows}
    assert error["Implicit(cg, 50)"] < 1e-3 < error["Implicit(cg, 1)"]


@pytest.mark.slow
def test_adjoints_benchmark(benchmark):
    module = benchmark("adjoints")
    names = ("MixedMode()", "Reverse('none')")
    config = module.Config(steps=(1, 3), adjoints=names, width=4, queries=1, repeats=1)
    rows = module.run(jax.random.key(0), config)
    assert [(r["adjoint"], r["steps"]) for r in rows] == [
        (name, steps) for steps in (1, 3) for name in names
    ]
    assert module.ratios(rows)["memory / plain reverse"] < 1


def test_meta_step_benchmark(benchmark, monkeypatch):
    module = benchmark("meta_step")
    waves = {k: v for k, v in module.problems(0).items() if "mlp" in k}
    monkeypatch.setattr(module, "problems", lambda seed: waves)
    rows = module.run(module.Config(repeats=2))
    assert [row["at once"] for row in rows] == [1, 4, 25]
    assert all(float(row["ms a step"]) > 0 for row in rows)


PAGES = ["README.md", "CONTRIBUTING.md", *sorted(
    f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")
)]  # fmt: skip
PROGRAMS = [page for page in PAGES if "```python" in (ROOT / page).read_text()]


@pytest.mark.parametrize("page", PROGRAMS)
def test_programs_of_a_page_run(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    known, scope = dict(learners.REGISTRY), {"__name__": "page"}
    try:
        for block in blocks:
            exec(compile(block, page, "exec"), scope)
    finally:  # the skeleton registers itself
        learners.REGISTRY.clear()
        learners.REGISTRY.update(known)
    if "report" in scope:
        mean = scope["report"].mean
        assert mean.get("accuracy", 1) > 0.5 and np.isfinite(mean["loss"])


def test_readme_is_short_and_begins_with_a_program():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    assert "jm.evaluate(" in "\n".join(text.splitlines()[:40])
    for page in re.findall(r"\]\(([^)]*)\)", text):
        assert (ROOT / page).exists(), page


def test_the_page_of_learners_is_what_the_command_prints(capsys):
    cli.main(["list", "--markdown"])
    said = capsys.readouterr().out
    assert said == (ROOT / "docs" / "learners.md").read_text(), (
        "jaxmeta list --markdown > docs/learners.md"
    )


def test_public_names_are_documented():
    for name in dir(jm):
        value = getattr(jm, name)
        if not name.startswith("_") and callable(value):
            assert value.__doc__, name


def test_importing_is_light():
    """No backend is started, and nothing heavy is imported before it is used."""
    program = (
        "import sys, jaxmeta\n"
        "heavy = {'flax', 'orbax', 'matplotlib', 'tensorflow_datasets', 'rich', 'tyro',"
        " 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    ends = []
    for more in ("", "import jax; jax.devices()"):  # what would start one fails
        done = subprocess.run(
            [sys.executable, "-c", program + more],
            capture_output=True,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "none_of_that_name"},
        )
        ends.append((done.returncode, done.stderr))
    assert ends[0][0] == 0, ends[0][1]
    assert ends[1][0] != 0 and "none_of_that_name" in ends[1][1]


def test_no_dependency_has_an_upper_bound():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for requirement in itertools.chain(project["dependencies"], *extras):
        assert not re.search(r"<|==|~=", requirement.split(";")[0]), requirement


def test_no_test_is_named_by_an_address(request):
    """It would differ from worker to worker."""
    assert not [i.nodeid for i in request.session.items if " at 0x" in i.nodeid]


def test_no_file_holds_a_path_of_a_machine():
    folders = "benchmarks", "docs", "jaxmeta", "notebooks", "tests"
    files = [path for name in folders for path in (ROOT / name).rglob("*.*")]
    files = [p for p in files if p.suffix in {".ipynb", ".json", ".md", ".py", ".txt"}]
    assert ROOT / "benchmarks" / "results" / "speed.json" in files
    for path in (*files, *ROOT.glob("*.md")):
        found = re.search(r"/(home|tmp|root|work|Users)/\S*", path.read_text())
        assert not found, f"{path}: {found[0]}"


def test_speed_benchmark(benchmark, monkeypatch):
    """Processes, gradients, turns and tables, without the PyTorch peers."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "speed"))
    module = benchmark("run")
    peers = ("jaxmeta", "naive JAX")
    config = module.Config(workloads=("S, 1",), peers=peers, repeats=3)
    results = module.run(config)
    ours, naive = (results["S, 1"][p] for p in peers)
    assert naive["gradient_error"] < 1e-12
    assert ours["ms"] == sorted(ours["ms"]) and ours["peak_mb"] > 100
    rows = module.summary(results)
    assert [r["ms a step"] for r in rows][:2] == list(peers)


def test_population_benchmark(benchmark, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "speed"))
    module = benchmark("population")
    rows = module.run(module.Config(steps=2, members=(1, 2), repeats=1))
    assert [r["members"] for r in rows] == [1, 2] and rows[0]["times one"] == "1.00"
