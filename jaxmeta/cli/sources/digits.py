"""Digits of scikit-learn and other ones, turned: from a labelled to an unlabelled domain.

It is trained on pairs of domains that are made of the source alone, which is turned by an
angle of its own for each; tested on one target, other digits turned by `ANGLE`.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import data, tasks
from jaxmeta.cli.networks import FlagNetworks
from jaxmeta.cli.options import Options, given_or
from jaxmeta.cli.sources import images
from jaxmeta.cli.sources.source import Headline, Reports, nearest, source
from jaxmeta.learners.adaptation import source_only
from jaxmeta.learners.registry import facts_of
from jaxmeta.tasks.pairs import Turn
from jaxmeta.training.evaluate import evaluate
from jaxmeta.types import Sampler

ANGLE = 30.0  # degrees, of the target
ANGLES = (-60.0, 60.0)  # of the pairs that are trained on
FAST: dict[str, Any] = {"inner_steps": 10, "inner_lr": 0.01}
ALONE = 50  # steps from a random start


def _samplers(options: Options) -> dict[str, Sampler]:
    own, others = data.digits("train"), data.digits("test")
    given = (options.shots, options.unlabelled, options.queries)
    each = [len(own.classes) * given_or(number, 1) for number in given]
    sizes = dict(zip(("sources", "targets", "queries"), each, strict=True))
    turn = Turn(jnp.asarray(ANGLE), jnp.asarray(ANGLE))
    turned = np.asarray(turn(jax.random.key(0), jnp.asarray(others.x)))
    pairs = tasks.rotated(own, ANGLES, **sizes)
    test = tasks.domains(own, replace(others, x=turned), **sizes)
    return {"episodes": pairs, "validation": pairs, "test": test}


def _baselines(sampler, options: Options, num_tasks: int, key) -> Reports:
    """Of the source alone; of a network, which takes longer, the first tasks."""
    facts, shape = facts_of(sampler), sampler.source.x.shape[1:]
    networks = FlagNetworks.of(options, facts, shape)
    learner = source_only(
        networks.encoder(),
        ways=sampler.ways,
        features=networks.features,
        inner_steps=ALONE,
        inner_lr=FAST["inner_lr"],
    )
    params = learner.init(jax.random.key(options.seed))
    some = max(2, num_tasks // 10)
    report = evaluate(
        learner, params, sampler, num_tasks=some, key=jax.random.clone(key)
    )
    near = nearest("pixel nearest neighbour", "accuracy", ways=True)
    return {"source only": report, **near(sampler, options, num_tasks, key)}


source(
    name="digits",
    description="scikit-learn's digits with labels, other ones turned without; trains on "
    "pairs made of the first; needs scikit-learn",
    kind="classification",
    samplers=_samplers,
    headline=(Headline("accuracy", "accuracy", _baselines, scale=100, unit=" %"),),
    draw=images.draw,
    defaults={
        **{"shots": 10, "queries": 10, "unlabelled": 10, "steps": 200},
        **{"tasks_per_step": 4, "model": "mlp", "width": 64},
    },
    default_learner="dann",
    options=("shots", "queries", "unlabelled"),
    learner=FAST,
    unlabelled=True,
)
