"""Notebooks and the README: every example runs."""

import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest
from problems import row

import jaxmeta as jm
from jaxmeta import cli, learners

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONG_PAGES = {
    f"docs/{name}.md"
    for name in (
        *("own_data", "transfer", "adaptation", "bilevel", "streams", "users"),
        *("deploy", "adjoints"),
        *("many_tasks", "reinforcement", "runs", "scaling", "networks", "training"),
    )
}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS[:-1], ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch):
    """Its cells, one after the other, in this process: a kernel takes long to start."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    import matplotlib.pyplot as plt

    pictures = []

    def show():  # as in Jupyter: draws what is open, and closes it
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
            pictures.append(number)
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    scope = {"__name__": "notebook"}
    # a notebook may show twice what one key draws; how it prints is its own
    with jax.debug_key_reuse(False), np.printoptions():
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), path.name, "exec"), scope)
                show()
    assert len(pictures) >= 3


@pytest.mark.slow
def test_last_notebook_runs_in_jupyter(tmp_path):
    path = NOTEBOOKS[-1]
    inline = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
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
        env=inline,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / path.name).read_text())["cells"]
    pictures = [o for c in cells for o in c.get("outputs", ()) if "data" in o]
    assert len(pictures) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(path):
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs") and not cell.get("execution_count")


PAGES = ["README.md", "CONTRIBUTING.md", *sorted(
    f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")
)]  # fmt: skip
PROGRAMS = [page for page in PAGES if "```python" in (ROOT / page).read_text()]


@pytest.mark.parametrize(
    "page", [row(page, core=page not in LONG_PAGES) for page in PROGRAMS]
)
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
        assert mean.get("accuracy", 1) > 0.5 and np.isfinite([*mean.values()]).all()


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
    # the command line starts none either, for --devices says what the CPU is; what would
    # start one fails
    for more in ("import jaxmeta.cli.command", "import jax; jax.devices()"):
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
