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
from jaxmeta.training.scores import circular_validation
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
    it is trained on. options: arguments to choose from, by name.
    """

    title: str
    learner: str
    hyper: dict[str, Any] = field(default_factory=dict)
    inputs: bool = False
    on: str = "adapted"
    options: dict[str, dict[str, Any]] = field(default_factory=lambda: {"": {}})

    def makes(self, facts: Facts, width: int, training: dict[str, Any]) -> dict:
        """Option -> learner."""
        made = lambda option: self.make(facts, width, training | option)
        return {name: made(option) for name, option in self.options.items()}

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


@jax.jit
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

    return _mapped(one, tasks, key, at_once)


def _mapped(one, tasks: Task, key: jax.Array, at_once: int):
    """`one` of (task, two keys of its own), for each task."""
    keys = jax.random.split(key, (len(tasks.query.y), 2))
    return jax.lax.map(one, (tasks, keys), batch_size=at_once)


@partial(jax.jit, static_argnames=("learner", "starts", "at_once"))
def errors_of_starts(
    learner: MetaLearner, tasks: Task, key: jax.Array, starts: int, at_once: int = 1
):
    """[tasks] `errors` of one of several networks, in the mean, and of all together, whose
    probabilities are averaged."""

    def one(given):
        task, keys = given
        adapted = learner.adapt(learner.init(keys[0]), task.support, keys[1])
        return jax.nn.softmax(learner.predict(adapted, task.query.x))

    def wrong(p, y):  # p [..., tasks, queries, ways]
        return jnp.mean(jnp.argmax(p, axis=-1) != y, axis=-1)

    count, y = len(tasks.query.y), tasks.query.y
    each = jax.tree.map(lambda a: jnp.concatenate([a] * starts), tasks)
    p = _mapped(one, each, key, at_once)
    p = jnp.reshape(p, (starts, count, *p.shape[1:]))
    return jnp.mean(wrong(p, y[None]), axis=0), wrong(jnp.mean(p, axis=0), y)


@partial(jax.jit, static_argnames=("learner", "at_once"))
def validated(learner: MetaLearner, tasks: Task, key: jax.Array, at_once: int = 1):
    """[tasks] circular validation of the same networks, which sees no query set."""

    def one(given):
        task, keys = given
        params = learner.init(keys[0])
        return circular_validation(learner, params, task.support, keys[1])

    return _mapped(one, tasks, key, at_once)


def best_errors(learners: dict[str, MetaLearner], tasks: Task, key: jax.Array):
    """The `errors` of the learner that `validated` prefers for each task, and its name."""
    judged = lambda by: np.stack(
        [by(learner, tasks, jax.random.clone(key)) for learner in learners.values()]
    )
    wrong, names = judged(errors), np.array(list(learners))
    score = judged(validated) if len(names) > 1 else np.zeros_like(wrong)
    best = score.argmax(axis=0)
    return wrong[best, np.arange(len(best))], names[best].tolist()


@jax.jit
def stacked(tasks: list[Task]) -> Task:
    """Tasks of one shape as a batch."""
    return jax.tree.map(lambda *a: jnp.stack(a), *tasks)


def said(values, digits: int = 3) -> str:
    """Mean and half a 95 % interval, or the value if it is one."""
    values = np.round(np.asarray(values, float), 6) + 0.0  # of float32; no minus zero
    mean = f"{values.mean():.{digits}f}"
    return mean if values.size < 2 else f"{mean} ± {interval(values):.{digits}f}"
