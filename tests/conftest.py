"""Policy of the suite, and the small problems that its files share."""

import gc
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from surroundings import shared
from xdist.scheduler import LoadScopeScheduling

import jaxmeta as jm
from jaxmeta.boundary import remembered

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
gc.set_threshold(500_000, 50, 1000)  # programs are many objects, and hardly any garbage

# Tests compile much and compute little, so spend less on compiling: not optimised, and a
# small program not in parts. Each release of XLA drops some of its flags.
QUICK = (
    *("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false"),
    "--xla_cpu_opt_preset=FAST_COMPILE",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_force_host_platform_device_count=8",  # of which one is used, but on a mesh
)


def known(flags):
    """Those that XLA knows. It ends a process with any other, so a child tries all, and
    only if one is unknown children try each."""
    command = [sys.executable, "-c", "import jax; jax.devices('cpu')"]
    start = lambda flags: subprocess.Popen(
        command, env=os.environ | {"XLA_FLAGS": flags}, stderr=subprocess.DEVNULL
    )
    if not start(" ".join(flags)).wait():
        return flags
    tried = [start(flag) for flag in flags]
    return [flag for flag, child in zip(flags, tried, strict=True) if not child.wait()]


def pytest_configure():
    # where Python is told to keep no bytecode, each child would compile the package anew
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if "XLA_FLAGS" not in os.environ:  # once: workers inherit what is found
        os.environ["XLA_FLAGS"] = " ".join(known(QUICK))
    # threads of numpy's, each of which would wait by spinning on a core of another worker
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_sessionstart():
    """A worker stays on a core of its own: XLA, which would start threads for all cores,
    starts them for one, and none waits for another's."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):  # on Linux
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})


@pytest.hookimpl(trylast=True)
def pytest_unconfigure():
    """A worker that has said that it is done ends at once: taking its thousands of
    programs apart, as jax does at the end of a process, takes half a minute."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os._exit(0)


APART = "test_examples.py", "test_experiments.py"


class ByProgram(LoadScopeScheduling):
    """Keeps on one worker what shares compiled programs: a learner's rows of the
    contract, and the tests of any other file but those APART, long ones that share none.

    Marks of groups (`--dist loadgroup`) would say the same, but xdist 3.8 can't read them
    under pytest 9.2; a later xdist that ignores this method is slower, not wrong.
    """

    def _split_scope(self, nodeid):
        file, _, test = nodeid.partition("::")
        learner = re.search(r"\[(\w+)", test)
        if file.endswith("test_contract.py") and learner:
            return f"{file} {learner[1]}"
        return nodeid if file.endswith(APART) else file


def pytest_xdist_make_scheduler(config, log):
    return ByProgram(config, log)


NUMBERS = (
    *("tests/learners/", "tests/test_statistics.py", "tests/test_noise.py"),
    *("tests/test_estimators.py", "tests/models/test_layers.py", "tests/solvers/"),
    *("tests/test_boundary.py", "tests/test_trees.py", "tests/test_reference.py"),
    *("tests/transfer/", "tests/test_games.py", "tests/training/test_scores.py"),
    *("tests/envs/", "tests/tasks/", "tests/benchmarks/", "tests/continual/"),
    *("tests/test_bilevel.py", "tests/test_combiners.py", "tests/test_outers.py"),
    *("tests/test_multitask.py", "tests/test_ranking.py", "tests/test_inner.py"),
    *("tests/test_meshes.py", "jaxmeta/"),  # docs/ and their programs stay
    *("tests/test_metrics.py", "tests/test_properties.py", "tests/cli/"),
    *(
        "tests/test_adjoints.py",
        "tests/test_outer.py",
        "tests/models/test_precision.py",
    ),
    *("tests/models/test_resnet12.py", "tests/training/test_training.py"),
    "tests/test_bad_input.py::test_a_wrong_argument",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Numbers from outside depend on no version, the command line is tried by .ci/run and
    examples of docstrings by the pages, so the suite's core does without."""
    for item in items:
        if item.nodeid.startswith(NUMBERS):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def fresh():
    """Throw compiled programs away when they are many: each takes some ten maps of memory,
    of which a process of Linux has 65,530, and with none left it crashes. The longest file
    takes some 15,000, and of 20,000 a worker has 4 GB."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


# A run of the command line makes its optimiser (or bandit) anew, and for it its programs:
# a process has one run. A test has dozens, many alike, which share what is remembered.
ADAM, BANDIT = remembered(optax.adam), remembered(jm.envs.bandit)


@pytest.fixture(scope="module", autouse=True)
def runs_alike_share_programs(request):
    with pytest.MonkeyPatch.context() as patch:
        if on_the_command_line(request):
            patch.setattr(optax, "adam", ADAM)
            patch.setattr(jm.envs, "bandit", BANDIT)
        yield


@pytest.fixture(autouse=True)
def coarse_pictures(request, monkeypatch):
    """Laying pictures out takes a tenth of a run's time: runs of the command line draw
    them so that one sees little, but for a test of each kind, marked `pictures`."""
    if on_the_command_line(request) and not request.node.get_closest_marker("pictures"):
        from matplotlib.figure import Figure

        def savefig(self, path, **how):
            self.set_layout_engine("none")
            fine(self, path, **how | {"dpi": 40})

        fine = Figure.savefig
        monkeypatch.setattr(Figure, "savefig", savefig)


def on_the_command_line(request):
    return Path(__file__).parent / "cli" in request.path.parents


@pytest.fixture
def x64():
    """Double precision, for tests that compare gradients."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Keep the user's cache out of the tests; workers share one."""
    ours = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        ours = ours.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXMETA_CACHE", str(ours / "cache"))
        yield


@pytest.fixture(scope="session")
def golden():
    """name -> arrays of a golden file."""

    def load(name):
        return dict(np.load(shared("golden") / f"{name}.npz"))

    return load


@pytest.fixture(scope="session")
def blobs() -> jm.data.Dataset:
    """20 classes of 8 examples: points in 6 dimensions around a centre each."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(20, 1, 6))
    x = centres + 0.3 * random.normal(size=(20, 8, 6))
    return jm.data.from_arrays(x.reshape(160, 6), np.repeat(np.arange(20), 8))


@pytest.fixture
def experiment(monkeypatch, tmp_path):
    """Import an experiment of benchmarks/, scripts beside each other; its results go to
    a folder of the test."""
    folder = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.syspath_prepend(str(folder / "speed"))
    monkeypatch.setattr(importlib.import_module("report"), "FOLDER", tmp_path)
    return importlib.import_module
