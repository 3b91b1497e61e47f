"""The two lists, as tables: learners and problems, and the networks."""

import inspect
import json
from importlib import resources
from typing import Any

from jaxmeta import learners, models
from jaxmeta.cli.sources import SOURCES

HEAD = """# Learners

Printed by `jaxmeta list --markdown`. A name is that of a constructor, `jm.NAME`, and of a
subcommand, `jaxmeta train NAME`. *transductive*: a prediction depends on the other inputs
it is asked with, inside `predict` (beyond what batch norm does). *unlabelled*: uses support
examples with the label -1. *trains on classes*: on minibatches of
`jm.tasks.classes(dataset)`; it adapts to episodes like all others; make it with
`classes=sampler.classes`. Numbers: [benchmarks](../benchmarks/README.md) has the commands.
"""


def show() -> None:
    """Print the lists for a terminal."""
    table(
        "learners",
        ("name", "family", "learns", "", "paper"),
        [
            (name, e.family, ", ".join(e.learns), e.marks, e.paper)
            for name, e in learners.REGISTRY.items()
        ],
    )
    table(
        "data sets and task distributions",
        ("name", "kind", "what", "defaults"),
        [
            (name, s.kind, s.description, spelled(s.defaults | s.learner))
            for name, s in SOURCES.items()
        ],
    )
    table(
        "models",
        ("name", "what"),
        [
            (name, (inspect.getdoc(make) or "").split("\n")[0])
            for name, make in models.MODELS.items()
        ],
    )


def table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print one table."""
    from rich.console import Console
    from rich.table import Table

    made = Table(title=title, title_justify="left")
    for i, column in enumerate(header):
        made.add_column(column, no_wrap=i == 0)
    for row in rows:
        made.add_row(*row)
    console = Console()
    if not console.is_terminal:  # a pipe has no edge where a line is cut
        console = Console(width=240)
    console.print(made)


def markdown() -> str:
    """The learners as a page, a table for each family."""
    numbers, parts = measured(), [HEAD]
    for family in dict.fromkeys(e.family for e in learners.REGISTRY.values()):
        parts.append(f"## {family.capitalize()}\n")
        parts.append("| name | paper | learns | | measured on | ours | published |")
        parts.append("|---|---|---|---|---|---|---|")
        for name, e in learners.REGISTRY.items():
            if e.family == family:
                own = numbers.get(name, {})
                said = [own.get(k, "-") for k in ("on", "ours", "published")]
                cells = [f"`{name}`", e.paper, ", ".join(e.learns), e.marks, *said]
                parts.append(f"| {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def measured() -> dict[str, dict[str, str]]:
    """Of a learner: what it was measured on, our number, the published one.

    The file is made by benchmarks/learner_numbers.py.
    """
    text = resources.files("jaxmeta.learners").joinpath("numbers.json").read_text()
    return json.loads(text)


def spelled(values: dict[str, Any]) -> str:
    """name=value, ..."""
    return ", ".join(f"{k}={v}" for k, v in values.items())
