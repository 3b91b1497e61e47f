"""The plan of the house: who names whom, and which way imports point."""

import ast
import functools
from pathlib import Path

import pytest

import jaxmeta
from jaxmeta import learners
from jaxmeta.cli.sources import SOURCES

ROOT = Path(jaxmeta.__file__).parent
FILES = {p: ast.parse(p.read_text()) for p in sorted(ROOT.rglob("*.py"))}
FAMILIES = sorted({e.family for e in learners.REGISTRY.values()})
# rooms from the roof down; what stands in one line may not import what stands above it
FLOORS = (
    ("cli", "loading"),
    ("testing",),
    (
        *("training", "metrics", "averages", "estimators", "noise", "statistics"),
        *("bilevel", "online_bilevel", "multitask"),
    ),
    ("learners", "tasks"),
    ("outer", "task_axis", "models", "data", "transfer", "continual"),
    (
        *("boundary", "adjoints", "solvers", "rollouts", "hosted", "policies"),
        *("fixed_point",),
    ),
    (
        *("inner", "losses", "ranking", "defaults", "keys", "tame", "once", "envs"),
        *("meshes", "compress"),
    ),
    ("checks",),
    ("batches",),
    ("types",),
)
# ground-floor conveniences of rooms above, said here rather than hidden
ALLOWED = {("models", "statistics"), ("noise", "outer")}


def own_file(name: str) -> Path:
    module = learners.REGISTRY[name].constructor.__module__
    return ROOT.parent / (module.replace(".", "/") + ".py")


def named_in_code(tree: ast.AST) -> set[str]:
    """Names that a file imports or takes from the library, and whole strings."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {*(node.module or "").split("."), *(a.name for a in node.names)}
        elif isinstance(node, ast.Import):
            found |= {part for a in node.names for part in a.name.split(".")}
        elif isinstance(node, ast.Attribute):
            of = getattr(node.value, "id", None)
            found |= {node.attr} if of in ("jm", "jaxmeta", "learners") else set()
    return found | strings(tree)


def strings(tree: ast.AST) -> set[str]:
    """Whole strings; the key of a run's report is the English word."""
    found = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    return {s for s in found if isinstance(s, str)} - {"baseline"}


@functools.cache
def named() -> dict[Path, set[str]]:
    return {path: named_in_code(tree) for path, tree in FILES.items()}


@pytest.mark.parametrize("name", learners.REGISTRY)
def test_nothing_but_its_family_names_a_learner(name):
    """A problem may say which learner suits it, and what must be beaten."""
    own = own_file(name)
    others = [
        path
        for path, names in named().items()
        if name in names and path.parent != own.parent and "sources" not in path.parts
    ]
    assert not others


def test_between_the_two_lists_nothing_knows_a_name():
    names = {*learners.REGISTRY, *SOURCES}
    for path, tree in FILES.items():
        room = path.relative_to(ROOT).parts
        if room[0] in ("cli", "training") and "sources" not in room:
            kinds = {"classification", "regression"}
            assert not strings(tree) & (names | kinds), path


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_imports_another_and_each_file_has_its_line(family):
    folder = ROOT / "learners" / family
    others = {f"jaxmeta.learners.{other}" for other in FAMILIES if other != family}
    exported = named_in_code(FILES[folder / "__init__.py"])
    for path, tree in FILES.items():
        if path.parent != folder:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert ".".join(node.module.split(".")[:3]) not in others, path
    for name in learners.REGISTRY:
        if own_file(name).parent == folder:
            assert name in exported, f"{folder}/__init__.py has no line for {name}"


def test_imports_point_down():
    floor = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
    for path, tree in FILES.items():
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room not in floor:  # __init__, __main__
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "jaxmeta"
            ):
                inside = node.module.split(".")[1:2] or [a.name for a in node.names]
                for other in inside:
                    up = floor.get(other, 99) < floor[room]
                    assert not up or (room, other) in ALLOWED, (path, other)


def test_every_room_is_on_a_floor():
    rooms = {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in FILES}
    assert rooms - {"__init__", "__main__"} == {r for rooms in FLOORS for r in rooms}
