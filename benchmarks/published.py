"""Numbers that papers report, from published.json: each with its paper and its place.

A record has the values of one row of a table, by column. A record that nobody here has
seen in print has the mark "from memory": its values are a guide, no targets. Other marks:
"sd", the interval is a standard deviation; "GD", gradient descent in the inner loop.
"""

import json
from pathlib import Path

RECORDS = json.loads(Path(__file__).with_suffix(".json").read_text())


def published(experiment: str, row: str) -> dict[str, str]:
    """Columns of a row and what tables say there; empty where nothing is published."""
    cells = {}
    for record in RECORDS:
        if (record["experiment"], record["row"]) == (experiment, row):
            mark = f" ({record['mark']})" if "mark" in record else ""
            cells |= {c: value + mark for c, value in record["values"].items()}
    return cells


def number(cell: str) -> float:
    """The value of a cell, without interval and mark."""
    return float(cell.split()[0])
