"""Pages and the index of benchmarks/ say what is there: files, flags, numbers."""

import json
import re
import shlex
from pathlib import Path

import pytest
import tyro

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
FILES = [p for p in sorted(FOLDER.rglob("*.py")) if "\n    def tiny(" in p.read_text()]
SPEED = ROOT / "docs" / "performance.md"
PAGES = [*sorted(FOLDER.glob("*.md")), SPEED]
RECORDS = json.loads((FOLDER / "published.json").read_text())
NUMBER = r"\d+\.\d+(?:e-\d+)?"


def page_of(path: Path) -> Path:
    return SPEED if path.parent.name == "speed" else path.with_suffix(".md")


def commands():
    """(where it stands, words) of every command that runs a benchmark."""
    for path in (*PAGES, *FILES):
        for line in re.findall(r"^ *(python benchmarks/.*)|`(python benchmarks/[^`]*)`",
                               path.read_text(), re.MULTILINE):  # fmt: skip
            yield path.name, tuple(shlex.split("".join(line), comments=True))


COMMANDS = sorted(set(commands()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_has_a_page_a_row_and_a_command(path):
    name = path.relative_to(FOLDER).with_suffix("").as_posix()
    index = (FOLDER / "README.md").read_text()
    assert re.search(rf"^\| \[{name}\]\(.*{page_of(path).name}\)", index, re.MULTILINE)
    for text in (index, page_of(path).read_text(), path.read_text()):
        assert f"python benchmarks/{name}.py" in text


@pytest.mark.parametrize(
    ("words", "where"),
    [pytest.param(w, p, id=f"{p}: {' '.join(w)}") for p, w in COMMANDS],
)
def test_a_command_names_a_file_and_its_flags(words, where, experiment):
    path = ROOT / words[1]
    assert path in FILES, where
    tyro.cli(experiment(path.stem).Config, args=words[2:])


def test_the_index_is_short_and_has_the_numbers_of_the_pages():
    index = (FOLDER / "README.md").read_text()
    assert len(index.splitlines()) < 120
    page = ""
    for row in re.findall(r"^\|.*\|$", index, re.MULTILINE):
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        if link := re.search(r"\((.*\.md)\)", cells[0]):
            page = (FOLDER / link[1]).read_text()
        for number in re.findall(NUMBER, f"{cells[3]} {cells[4]}"):
            assert number in page, (cells, number)


def kept(module, stem):
    """The tables of an experiment whose results are kept."""
    found = (FOLDER / "results").glob(f"{stem}.json")
    return [(path.stem, module.spelled) for path in found]


# what a table is made of: page -> (file of results, results -> rows)
def families(module, name):
    stored = f"omniglot_families_{name}_seed0"
    return stored, lambda r: module.rows(name, 0, r["results"])


TABLES = {
    "sinusoid": lambda m: [("sinusoid", m.rows)],
    "cavia": lambda m: [("cavia", m.rows)],
    "meta_sgd": lambda m: [("meta_sgd", lambda r: m.rows(r, m.Config.test_shots))],
    "learned_optimizer": lambda m: [
        (f"learned_optimizer_{name}", lambda r: m.rows(r["runs"]))
        for name in m.Config.problems
    ],
    "imaml": lambda m: [("imaml", lambda r: r["errors"] + r["memory"])],
    "adjoints": lambda m: [(f"adjoints_{n}_queries", m.rows) for n in (1, 5, 15)],
    "omniglot": lambda m: [
        (path.stem, lambda r: [m.row(r["result"])])
        for path in (FOLDER / "results").glob("omniglot_*way_*.json")
    ],
    "omniglot_families": lambda m: [families(m, name) for name in m.EXPERIMENTS],
    "omniglot_challenge": lambda m: [
        (f"omniglot_challenge_{split}_seed0", lambda r: [m.row(x, 0) for x in r["results"]])
        for split in m.Config.splits
    ],
    "mann": lambda m: [("mann_5way", m.rows)],
    "neural_process": lambda m: [
        (f"neural_process_{stem}", lambda r, n=stem[: stem.rindex("_")]: m.rows(
            {n: r["runs"]})[:1])
        for stem in (*(f"{n}_50000" for n in m.LEARNERS), "cnp_100000")
    ],
    "run": lambda m: [("speed", lambda r: m.summary(r["results"]))],
    "digits": lambda m: [("digits", lambda r: [m.spelled(x) for x in r["rows"]])],
    "lp_ft": lambda m: kept(m, "lp_ft"),
    "bandits": lambda m: kept(m, "bandits_*"),
    "tabular_mdp": lambda m: kept(m, "tabular_mdp"),
    "grid": lambda m: kept(m, "grid"),
    "navigation": lambda m: kept(m, "navigation"),
    "moons": lambda m: kept(m, "moons"),
    "movielens": lambda m: kept(m, "movielens"),
    "shifts": lambda m: kept(m, "shifts"),
    "domain_digits": lambda m: kept(m, "domain_digits"),
    "corners": lambda m: kept(m, "corners"),
    "hyper_cleaning": lambda m: [("hyper_cleaning", m.lines)],
    "long_tail": lambda m: kept(m, "long_tail"),
    "leopard": lambda m: [("leopard", m.lines)],
    "compressing": lambda m: kept(m, "compressing"),
    "split_digits": lambda m: kept(m, "split_digits"),
    "continual_omniglot": lambda m: kept(m, "continual_omniglot_*"),
    "faults": lambda m: kept(m, "faults*"),
    "scaling": lambda m: kept(m, "scaling"),
    "remat": lambda m: [("remat", m.rows)],
    "valley": lambda m: kept(m, "valley"),
    "halting": lambda m: kept(m, "halting"),
    "streams": lambda m: [
        ("streams", lambda r, part=part: m.spelled(r[part]))
        for part in ("rates", "trainings", "memory")
    ],
    "agents": lambda m: [
        ("agents", lambda r: m.rates(r["results"]) + r["memory"])
    ],
    "adaptation": lambda m: kept(m, "adaptation"),
    "two_levels": lambda m: [
        ("two_levels", lambda r: m.spelled(r) + m.memory(r))
    ],
    "population": lambda m: [(f"population_{n}", lambda r: r["rows"]) for n in (1, 2)],
    "end_to_end": lambda m: [
        ("end_to_end", lambda r: r["inside compiled"] + r["end to end"])
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_a_page_are_those_of_the_kept_results(name, experiment):
    (path,) = (p for p in FILES if p.stem == name)
    page = page_of(path).read_text()
    for stored, rows in TABLES[name](experiment(name)):
        results = json.loads((FOLDER / "results" / f"{stored}.json").read_text())
        results.pop("device")
        for row in rows(results):
            assert "| " + " | ".join(map(str, row.values())) + " |" in page


def test_published_numbers_have_a_source():
    names = {path.stem for path in FILES}
    for record in RECORDS:
        assert record["experiment"] in names and record["values"], record
        assert re.search(r"arXiv \d{4}\.\d{5}$|Science", record["paper"]), record
        assert record["where"], record
        unread = record["read in"] == "not read"
        assert (record.get("mark") == "from memory") == unread, record


def test_published_numbers_stand_in_no_code():
    for record in RECORDS:
        code = (FOLDER / f"{record['experiment']}.py").read_text()
        for value in record["values"].values():
            number = re.escape(value.split()[0])
            assert not re.search(rf"(?<![\d.]){number}(?![\d.])", code), record


def test_nothing_refers_to_a_list_outside_of_the_repository():
    for path in (*PAGES, *FOLDER.rglob("*.py"), FOLDER / "published.json"):
        assert "TARGETS" not in path.read_text(), path


def test_the_numbers_of_the_learners_page_are_those_of_the_results(experiment):
    module = experiment("learner_numbers")
    assert module.numbers() == json.loads(module.PAGE.read_text()), (
        "python benchmarks/learner_numbers.py"
    )
