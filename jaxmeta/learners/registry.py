"""The learners by name: the command line, the README's table and the contract tests
are generated from here, so a learner that is registered is listed, runnable and tested.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jaxmeta.learners.amortized.anp import anp
from jaxmeta.learners.amortized.cnp import cnp
from jaxmeta.learners.amortized.in_context import in_context
from jaxmeta.learners.amortized.mann import mann
from jaxmeta.learners.amortized.neural_process import neural_process
from jaxmeta.learners.amortized.snail import snail
from jaxmeta.learners.amortized.tnpd import tnpd
from jaxmeta.learners.amortized.versa import versa
from jaxmeta.learners.gradient.alfa import alfa
from jaxmeta.learners.gradient.anil import anil
from jaxmeta.learners.gradient.bmaml import bmaml
from jaxmeta.learners.gradient.boil import boil
from jaxmeta.learners.gradient.bootstrapped import bootstrapped
from jaxmeta.learners.gradient.cavia import cavia
from jaxmeta.learners.gradient.imaml import imaml
from jaxmeta.learners.gradient.learned_optimizer import learned_optimizer
from jaxmeta.learners.gradient.leo import leo
from jaxmeta.learners.gradient.lstm_meta_learner import lstm_meta_learner
from jaxmeta.learners.gradient.maml import fomaml, maml
from jaxmeta.learners.gradient.maml_plus_plus import maml_plus_plus
from jaxmeta.learners.gradient.meta_curvature import meta_curvature
from jaxmeta.learners.gradient.meta_sgd import meta_sgd
from jaxmeta.learners.gradient.mtl import mtl
from jaxmeta.learners.gradient.protomaml import protomaml
from jaxmeta.learners.gradient.proximal import proximal
from jaxmeta.learners.gradient.reptile import reptile
from jaxmeta.learners.gradient.tnet import tnet
from jaxmeta.learners.metric.baseline import baseline, baseline_plus_plus
from jaxmeta.learners.metric.deepemd import deepemd
from jaxmeta.learners.metric.feat import feat
from jaxmeta.learners.metric.matching import matching
from jaxmeta.learners.metric.meta_baseline import meta_baseline
from jaxmeta.learners.metric.protonet import protonet
from jaxmeta.learners.metric.relation import relation
from jaxmeta.learners.metric.siamese import siamese
from jaxmeta.learners.metric.simpleshot import simpleshot
from jaxmeta.learners.metric.soft_kmeans import soft_kmeans
from jaxmeta.learners.solver.lrd2 import lrd2
from jaxmeta.learners.solver.metaoptnet import metaoptnet
from jaxmeta.learners.solver.r2d2 import r2d2
from jaxmeta.learners.transductive.bd_cspn import bd_cspn
from jaxmeta.learners.transductive.label_propagation import label_propagation
from jaxmeta.learners.transductive.laplacian_shot import laplacian_shot
from jaxmeta.learners.transductive.pt_map import pt_map
from jaxmeta.learners.transductive.tim import tim
from jaxmeta.learners.transductive.transductive_finetuning import (
    transductive_finetuning,
)
from jaxmeta.types import MetaLearner

Problem = Literal["classification", "regression"]


@dataclass(frozen=True)
class Entry:
    """One registered learner.

    constructor: makes the `MetaLearner` from models and hyper-parameters.
    family: what `adapt` does: gradient, metric, solver, amortized or
        transductive.
    paper: authors, year, arXiv number.
    models: what its models give: ("outputs",) one model with the task's outputs,
        ("features",) one encoder, ("context",) one with context parameters too,
        ("grid", ...) feature maps, "relation" a comparison of two of them,
        ("encoder", "decoder", ...) networks over pairs; () it makes its own.
    problems: the kinds of task it learns.
    trains_on: "episodes", or "classes": minibatches with labels of all classes, see
        `jaxmeta.tasks.classes`; it is tested on episodes all the same.
    transductive: whether a prediction depends on the other inputs it is asked with.
    unlabelled: whether it makes use of unlabelled support examples.
    """

    constructor: Callable[..., MetaLearner]
    family: Literal["gradient", "metric", "solver", "amortized", "transductive"]
    paper: str
    models: tuple[str, ...]
    problems: tuple[Problem, ...]
    trains_on: Literal["episodes", "classes"] = "episodes"
    transductive: bool = False
    unlabelled: bool = False

    def takes(self, argument: str) -> bool:
        """Whether the constructor has an argument of that name."""
        return argument in inspect.signature(self.constructor).parameters

    @property
    def marks(self) -> str:
        """What every table says of it: transductive, unlabelled, trains on classes."""
        said = {
            "transductive": self.transductive,
            "unlabelled": self.unlabelled,
            "trains on classes": self.trains_on == "classes",
        }
        return ", ".join(word for word, true in said.items() if true)

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
    "boil": Entry(
        boil,
        "gradient",
        "Oh et al. 2021, arXiv 2008.08882",
        ("outputs",),
        ("classification", "regression"),
    ),
    "maml_plus_plus": Entry(
        maml_plus_plus,
        "gradient",
        "Antoniou et al. 2019, arXiv 1810.09502",
        ("outputs",),
        ("classification", "regression"),
    ),
    "meta_sgd": Entry(
        meta_sgd,
        "gradient",
        "Li et al. 2017, arXiv 1707.09835",
        ("outputs",),
        ("classification", "regression"),
    ),
    "meta_curvature": Entry(
        meta_curvature,
        "gradient",
        "Park and Oliva 2019, arXiv 1902.03356",
        ("outputs",),
        ("classification", "regression"),
    ),
    "tnet": Entry(
        tnet,
        "gradient",
        "Lee and Choi 2018, arXiv 1801.05558",
        ("outputs",),
        ("classification", "regression"),
    ),
    "alfa": Entry(
        alfa,
        "gradient",
        "Baik et al. 2020, arXiv 2011.00209",
        ("outputs",),
        ("classification", "regression"),
    ),
    "cavia": Entry(
        cavia,
        "gradient",
        "Zintgraf et al. 2019, arXiv 1810.03642",
        ("context",),
        ("classification", "regression"),
    ),
    "reptile": Entry(
        reptile,
        "gradient",
        "Nichol et al. 2018, arXiv 1803.02999",
        ("outputs",),
        ("classification", "regression"),
    ),
    "imaml": Entry(
        imaml,
        "gradient",
        "Rajeswaran et al. 2019, arXiv 1909.04630",
        ("outputs",),
        ("classification", "regression"),
    ),
    "proximal": Entry(
        proximal,
        "gradient",
        "Zhou et al. 2019, NeurIPS",
        ("outputs",),
        ("classification", "regression"),
    ),
    "protomaml": Entry(
        protomaml,
        "gradient",
        "Triantafillou et al. 2020, arXiv 1903.03096",
        ("features",),
        ("classification",),
    ),
    "leo": Entry(
        leo,
        "gradient",
        "Rusu et al. 2019, arXiv 1807.05960",
        ("features",),
        ("classification",),
    ),
    "bmaml": Entry(
        bmaml,
        "gradient",
        "Yoon et al. 2018, arXiv 1806.03836",
        ("outputs",),
        ("classification", "regression"),
    ),
    "bootstrapped": Entry(
        bootstrapped,
        "gradient",
        "Flennerhag et al. 2022, arXiv 2109.04504",
        ("outputs",),
        ("classification", "regression"),
    ),
    "mtl": Entry(
        mtl,
        "gradient",
        "Sun et al. 2019, arXiv 1812.02391",
        ("outputs",),
        ("classification", "regression"),
    ),
    "lstm_meta_learner": Entry(
        lstm_meta_learner,
        "gradient",
        "Ravi and Larochelle 2017, ICLR",
        ("outputs",),
        ("classification", "regression"),
    ),
    "learned_optimizer": Entry(
        learned_optimizer,
        "gradient",
        "Andrychowicz et al. 2016, arXiv 1606.04474",
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
    "matching": Entry(
        matching,
        "metric",
        "Vinyals et al. 2016, arXiv 1606.04080",
        ("features",),
        ("classification",),
    ),
    "relation": Entry(
        relation,
        "metric",
        "Sung et al. 2018, arXiv 1711.06025",
        ("grid", "relation"),
        ("classification",),
    ),
    "siamese": Entry(
        siamese,
        "metric",
        "Koch et al. 2015, ICML workshop",
        ("features",),
        ("classification",),
    ),
    "meta_baseline": Entry(
        meta_baseline,
        "metric",
        "Chen et al. 2021, arXiv 2003.04390",
        ("features",),
        ("classification",),
    ),
    "feat": Entry(
        feat,
        "metric",
        "Ye et al. 2020, arXiv 1812.03664",
        ("features",),
        ("classification",),
    ),
    "deepemd": Entry(
        deepemd,
        "metric",
        "Zhang et al. 2020, arXiv 2003.06777",
        ("grid",),
        ("classification",),
    ),
    "baseline": Entry(
        baseline,
        "metric",
        "Chen et al. 2019, arXiv 1904.04232",
        ("features",),
        ("classification",),
        trains_on="classes",
    ),
    "baseline_plus_plus": Entry(
        baseline_plus_plus,
        "metric",
        "Chen et al. 2019, arXiv 1904.04232",
        ("features",),
        ("classification",),
        trains_on="classes",
    ),
    "simpleshot": Entry(
        simpleshot,
        "metric",
        "Wang et al. 2019, arXiv 1911.04623",
        ("features",),
        ("classification",),
        trains_on="classes",
    ),
    "r2d2": Entry(
        r2d2,
        "solver",
        "Bertinetto et al. 2019, arXiv 1805.08136",
        ("features",),
        ("classification", "regression"),
    ),
    "lrd2": Entry(
        lrd2,
        "solver",
        "Bertinetto et al. 2019, arXiv 1805.08136",
        ("features",),
        ("classification",),
    ),
    "metaoptnet": Entry(
        metaoptnet,
        "solver",
        "Lee et al. 2019, arXiv 1904.03758",
        ("features",),
        ("classification",),
    ),
    "cnp": Entry(
        cnp,
        "amortized",
        "Garnelo et al. 2018, arXiv 1807.01613",
        ("encoder", "decoder"),
        ("regression",),
    ),
    "versa": Entry(
        versa,
        "amortized",
        "Gordon et al. 2019, arXiv 1805.09921",
        ("features",),
        ("classification",),
    ),
    "mann": Entry(
        mann,
        "amortized",
        "Santoro et al. 2016, arXiv 1605.06065",
        ("features",),
        ("classification",),
    ),
    "snail": Entry(
        snail,
        "amortized",
        "Mishra et al. 2018, arXiv 1707.03141",
        ("features",),
        ("classification",),
    ),
    "neural_process": Entry(
        neural_process,
        "amortized",
        "Garnelo et al. 2018, arXiv 1807.01622",
        ("encoder", "latent", "decoder"),
        ("regression",),
    ),
    "anp": Entry(
        anp,
        "amortized",
        "Kim et al. 2019, arXiv 1901.05761",
        ("encoder", "latent", "attention", "decoder"),
        ("regression",),
    ),
    "tnpd": Entry(
        tnpd,
        "amortized",
        "Nguyen and Grover 2022, arXiv 2207.04179",
        (),
        ("regression",),
    ),
    "in_context": Entry(
        in_context,
        "amortized",
        "Mueller et al. 2022, arXiv 2112.10510",
        (),
        ("classification", "regression"),
    ),
    "transductive_finetuning": Entry(
        transductive_finetuning,
        "transductive",
        "Dhillon et al. 2020, arXiv 1909.02729",
        ("features",),
        ("classification",),
        trains_on="classes",
        transductive=True,
    ),
    "tim": Entry(
        tim,
        "transductive",
        "Boudiaf et al. 2020, arXiv 2008.11297",
        ("features",),
        ("classification",),
        trains_on="classes",
        transductive=True,
    ),
    "laplacian_shot": Entry(
        laplacian_shot,
        "transductive",
        "Ziko et al. 2020, arXiv 2006.15486",
        ("features",),
        ("classification",),
        trains_on="classes",
        transductive=True,
    ),
    "pt_map": Entry(
        pt_map,
        "transductive",
        "Hu et al. 2021, arXiv 2006.03806",
        ("features",),
        ("classification",),
        trains_on="classes",
        transductive=True,
    ),
    "bd_cspn": Entry(
        bd_cspn,
        "transductive",
        "Liu et al. 2020, arXiv 1911.10713",
        ("features",),
        ("classification",),
        trains_on="classes",
        transductive=True,
    ),
    "label_propagation": Entry(
        label_propagation,
        "transductive",
        "Liu et al. 2019, arXiv 1805.10002",
        ("features",),
        ("classification",),
        transductive=True,
        unlabelled=True,
    ),
    "soft_kmeans": Entry(
        soft_kmeans,
        "metric",
        "Ren et al. 2018, arXiv 1803.00676",
        ("features",),
        ("classification",),
        unlabelled=True,
    ),
}


def get(name: str) -> Entry:
    """The entry of that name.

    Raises: ValueError naming the registered learners, and the nearest one.
    """
    return lookup(REGISTRY, name, "learner")


def lookup(table: dict[str, Any], name: str, what: str) -> Any:
    """`table[name]`, or a ValueError that lists the names and suggests the nearest."""
    word = name if isinstance(name, str) else ""
    if word in table:
        return table[word]
    near = difflib.get_close_matches(word, table, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"unknown {what} {name!r}: expected one of {', '.join(table)}{hint}"
    )
