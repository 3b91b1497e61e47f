"""What experiments across domains share: pairs of domains, and rows, which are learners of
the family by name, trained from a random start on one pair."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from networks import Conv4

from jaxmeta import models
from jaxmeta.learners import registry
from jaxmeta.learners.registry import Facts, build
from jaxmeta.training.evaluate import interval
from jaxmeta.types import UNLABELLED, Batch, MetaLearner, Model, Task

SOFTMAX = {"head": "softmax"}  # a row's classifier, in place of the network


class Layers(Conv4):
    """`Networks` with one hidden layer, and as many features."""

    def encoder(self) -> Model:
        """Inputs -> `width` features."""
        return models.mlp(self.facts.x_dims, self.width, (self.width,))

    def head(self) -> Model:
        """Inputs -> logits, two hidden layers."""
        return models.mlp(self.facts.x_dims, self.facts.ways or 2, (self.width,) * 2)


@dataclass(frozen=True)
class Row:
    """A line of a table.

    learner: its name. hyper: its arguments. inputs: whether it moves the inputs themselves
    and has no encoder; its head is then the network, or what `hyper` says. on: the task that
    it is trained on.
    """

    title: str
    learner: str
    hyper: dict[str, Any] = field(default_factory=dict)
    inputs: bool = False
    on: str = "adapted"

    def make(self, facts: Facts, width: int, training: dict[str, Any]) -> MetaLearner:
        """The learner, with as much of the training as it has arguments for."""
        entry, networks = registry.get(self.learner), Layers(facts, width)
        hyper = {k: v for k, v in training.items() if entry.takes(k)}
        hyper |= self.hyper
        if not self.inputs:
            facts = facts._replace(features=width)
            return build(self.learner, facts, Layers(facts, width), **hyper)
        if entry.takes("head"):
            hyper = {"head": networks.head()} | hyper
        return entry.constructor(None, ways=facts.ways, **hyper)


def chosen(rows: tuple[Row, ...], titles: tuple[str, ...] | None) -> list[Row]:
    """The rows of some titles, None = all, whose learners there are."""
    wanted = lambda row: titles is None or row.title in titles
    return [row for row in rows if row.learner in registry.REGISTRY and wanted(row)]


class Domain(NamedTuple):
    """Examples with labels."""

    x: Any  # [n, ...]
    y: Any  # [n]


def tasks_of(source: Domain, target: Domain, test: Domain) -> dict[str, Task]:
    """What is adapted to, "adapted", and what is best to have: the target with labels,
    "in-domain"."""

    def support(known: Domain) -> Batch:
        x = jnp.concatenate([jnp.asarray(known.x), jnp.asarray(target.x)])
        unknown = jnp.full(len(target.y), UNLABELLED)
        return Batch(x, jnp.concatenate([jnp.asarray(known.y), unknown]))

    query = Batch(jnp.asarray(test.x), jnp.asarray(test.y))
    return {
        "adapted": Task(support(source), query),
        "in-domain": Task(support(target), query),
    }


@partial(jax.jit, static_argnames=("learner", "at_once"))
def errors(learner: MetaLearner, tasks: Task, key: jax.Array, at_once: int = 1):
    """[tasks] share of the query set that is wrong, of networks of their own."""

    def one(given):
        task, keys = given
        params = learner.init(keys[0])
        return 1 - learner.loss(params, task, keys[1])[1]["accuracy"]

    keys = jax.random.split(key, (len(tasks.query.y), 2))
    return jax.lax.map(one, (tasks, keys), batch_size=at_once)


def stacked(tasks: list[Task]) -> Task:
    """Tasks of one shape as a batch."""
    return jax.tree.map(lambda *a: jnp.stack(a), *tasks)


def said(values, digits: int = 3) -> str:
    """Mean and half a 95 % interval, or the value if it is one."""
    values = np.round(np.asarray(values, float), 6) + 0.0  # of float32; no minus zero
    mean = f"{values.mean():.{digits}f}"
    return mean if values.size < 2 else f"{mean} ± {interval(values):.{digits}f}"
