"""The learners by name: the command line, the README's table and the contract tests
are generated from here, so a learner that is registered is listed, runnable and tested.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jaxmeta.learners.anil import anil
from jaxmeta.learners.cnp import cnp
from jaxmeta.learners.maml import fomaml, maml
from jaxmeta.learners.protonet import protonet
from jaxmeta.learners.r2d2 import r2d2
from jaxmeta.types import MetaLearner

Problem = Literal["classification", "regression"]


@dataclass(frozen=True)
class Entry:
    """One registered learner.

    constructor: makes the `MetaLearner` from models and hyper-parameters.
    family: what `adapt` does: gradient, metric, solver or amortized.
    paper: authors, year, arXiv number.
    models: what its models give: ("outputs",) one model with the task's outputs,
        ("features",) one encoder, ("encoder", "decoder") two networks over pairs.
    problems: the kinds of task it learns.
    """

    constructor: Callable[..., MetaLearner]
    family: Literal["gradient", "metric", "solver", "amortized"]
    paper: str
    models: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def defaults(self) -> dict[str, Any]:
        """Hyper-parameters of the constructor with their default values."""
        parameters = inspect.signature(self.constructor).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}


REGISTRY: dict[str, Entry] = {
    "maml": Entry(
        maml,
        "gradient",
        "Finn et al. 2017, arXiv 1703.03400",
        ("outputs",),
        ("classification", "regression"),
    ),
    "fomaml": Entry(
        fomaml,
        "gradient",
        "Finn et al. 2017, arXiv 1703.03400",
        ("outputs",),
        ("classification", "regression"),
    ),
    "anil": Entry(
        anil,
        "gradient",
        "Raghu et al. 2020, arXiv 1909.09157",
        ("outputs",),
        ("classification", "regression"),
    ),
    "protonet": Entry(
        protonet,
        "metric",
        "Snell et al. 2017, arXiv 1703.05175",
        ("features",),
        ("classification",),
    ),
    "r2d2": Entry(
        r2d2,
        "solver",
        "Bertinetto et al. 2019, arXiv 1805.08136",
        ("features",),
        ("classification", "regression"),
    ),
    "cnp": Entry(
        cnp,
        "amortized",
        "Garnelo et al. 2018, arXiv 1807.01613",
        ("encoder", "decoder"),
        ("regression",),
    ),
}


def get(name: str) -> Entry:
    """The entry of that name.

    Raises: ValueError naming the registered learners, and the nearest one.
    """
    return lookup(REGISTRY, name, "learner")


def lookup(table: dict[str, Any], name: str, what: str) -> Any:
    """`table[name]`, or a ValueError that lists the names and suggests the nearest."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"unknown {what} {name!r}: expected one of {', '.join(table)}{hint}"
    )
