"""Notebooks and the README: every example runs."""

import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import jaxmeta as jm
from jaxmeta import learners

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


def test_readme_lists_every_learner():
    text = (ROOT / "README.md").read_text()
    for name, entry in learners.REGISTRY.items():
        problems = ", ".join(entry.learns)
        row = f"| `{name}` | {entry.family} | {entry.paper} | {problems} | {entry.marks} |"
        assert row in text


@pytest.mark.parametrize("page", ["README.md", "docs/networks.md"])
def test_programs_of_a_page_run(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert len(blocks) >= 2
    scope: dict = {}
    for block in blocks:
        exec(compile(block, page, "exec"), scope)
    assert scope["report"].mean["accuracy"] > 0.5


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
