"""A small problem for every registered learner, from the registry itself."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import softmax

import jaxmeta as jm
from jaxmeta import learners
from jaxmeta.learners.registry import Facts, build, facts_of
from jaxmeta.testing import double as double
from jaxmeta.testing import largest_difference as largest_difference
from jaxmeta.testing import many_tasks as many_tasks
from jaxmeta.testing import one_task as one_task
from jaxmeta.testing import pad as pad

WAYS = 3
CLASSES = 20
# those that learn from examples; agents, which act, have other functions
LEARNERS = {n: e for n, e in learners.REGISTRY.items() if not e.acts}
AGENTS = {n: e for n, e in learners.REGISTRY.items() if e.acts}
ROWS = [(n, p) for n, entry in LEARNERS.items() for p in entry.learns]
# five steps of conjugate gradients on squared errors leave three digits in single precision
WELL_POSED = {"imaml": "classification"}
# one row a learner, both problems in turn: for what is expensive and hardly depends on them
ONE_EACH = [
    (n, WELL_POSED.get(n, e.learns[i % len(e.learns)]))
    for i, (n, e) in enumerate(LEARNERS.items())
]
# a plain learner of each family: its costly rows belong to the suite's core
CORE = (
    *("maml", "protonet", "r2d2", "cnp", "bd_cspn"),
    *("rl2", "source_only", "oml", "item_mean"),
)


def row(*values, core: bool):
    """Arguments of a test; outside the core they are slow (`-m "not slow"`)."""
    return pytest.param(*values, marks=() if core else pytest.mark.slow)


@dataclass(frozen=True)
class TinyNetworks:
    """`Networks` of one hidden layer; feature maps are 2 positions of 4 channels."""

    facts: Facts
    activation: Callable = jax.nn.relu
    width: int = 8

    def predictor(self, *, context=0):
        outputs = self.facts.ways or self.facts.y_dims
        return self._mlp(self.facts.x_dims, outputs, min(context, 4))

    def encoder(self):
        return self._mlp(self.facts.x_dims, self.width)

    def maps(self):
        return as_grid(self.encoder())

    def pairs(self):
        return jm.models.mlp((1, 2, 8), 1, (8,))

    def mlp(self, inputs, outputs):
        return self._mlp(inputs, outputs)

    def rater(self, outputs):
        sizes = {"hidden": (16,), "width": 2, "activation": self.activation}
        return jm.models.rater(self.facts.items, outputs, **sizes)

    def sets(self, inputs, outputs):
        return jm.models.set_encoder(inputs, outputs, hidden=(16,), after=(16,))

    def attention(self, inputs, values):
        hidden = (16,)
        return jm.models.cross_attention(
            inputs, values, width=self.width, heads=2, hidden=hidden
        )

    def _mlp(self, inputs, outputs, context=0):
        return jm.models.mlp(
            inputs, outputs, (16,), context=context, activation=self.activation
        )


@lru_cache
def sampler_of(problem: str, blobs, unlabelled: int = 0):
    """One object for all learners, since another is compiled anew."""
    if problem == "classification":
        return jm.tasks.episodes(blobs, WAYS, shots=2, queries=3, unlabelled=unlabelled)
    if problem == "recommendation":
        return jm.tasks.users(few_ratings(), queries=3)
    return jm.tasks.sinusoid(shots=5, queries=5)


def few_ratings(users: int = 40, items: int = 6, each: int = 5) -> jm.data.Dataset:
    """What users think of items, as `jm.data.ratings` has it: items are better or worse,
    users kinder or not, and women like the first half of the genres."""
    random = np.random.default_rng(0)
    quality, kindness = random.normal(size=items), random.normal(size=users)
    facts = random.integers(0, (2, 7, 21, 11), (users, 4))
    genres = np.eye(18)[random.integers(0, 18, items)]
    user = np.repeat(np.arange(users), each)
    item = np.concatenate([random.permutation(items)[:each] for _ in range(users)])
    taste = np.where(genres[item].argmax(1) < 9, 1, -1) * (1 - 2 * facts[user, 0])
    rating = 3 + quality[item] + 0.5 * kindness[user] + 0.5 * taste
    x = {"item": item, "user": facts[user], "genres": genres[item]}
    return jm.data.from_arrays(x, user, targets=rating[:, None], name="few ratings")


def one_user(known: int = 3) -> jm.Task:
    """The first of them, as it is, which compiles nothing."""
    data = few_ratings()
    rows = lambda part: jax.tree.map(
        lambda a: jnp.asarray(a[part]), (data.x, data.targets)
    )
    query = slice(known, int(data.counts[0]))
    return jm.Task(jm.Batch(*rows(slice(0, known))), jm.Batch(*rows(query)))


def make(name: str, problem: str, blobs, activation=jax.nn.relu, **hyper):
    """(learner, sampler) with tiny networks."""
    entry = learners.REGISTRY[name]
    sampler = sampler_of(problem, blobs, 2 if entry.unlabelled else 0)
    if problem == "classification":
        fitting = {"inner_lr": 0.1, "inner_steps": 2, "loss": jm.losses.cross_entropy}
    else:
        fitting = {"inner_lr": 0.01, "inner_steps": 1, "loss": jm.losses.mse}
    if (
        entry.family == "adaptation"
    ):  # steps of Adam, twice differentiated, compile long
        fitting |= {"rule": optax.sgd}
    fitting = {k: v for k, v in fitting.items() if entry.takes(k)}
    facts = facts_of(sampler, classes=CLASSES, features=TinyNetworks.width)
    networks = TinyNetworks(facts, activation)
    return build(name, facts, networks, **(fitting | entry.tiny | hyper)), sampler


@lru_cache
def classes(blobs):
    """Minibatches of all classes, one object."""
    return jm.tasks.classes(blobs, batch=8)


def training_sampler(name: str, sampler, blobs):
    """What the learner trains on: the episodes, or minibatches of all classes."""
    return classes(blobs) if learners.REGISTRY[name].trains_on == "classes" else sampler


def as_grid(model: jm.Model) -> jm.Model:
    """8 features as a map of 2 positions and 4 channels: of 2, once centred, a cosine is 1
    or -1, whichever rounding says."""
    apply = lambda params, x: jnp.reshape(model.apply(params, x), (len(x), 1, 2, 4))
    return jm.Model(model.init, apply)


def slope_is_a_difference(both, start) -> None:
    """Of a compiled `jax.value_and_grad`, from `start` along one direction of its tree."""
    start = jax.device_get(start)
    wave = lambda a: np.cos(np.arange(a.size) + 1.0).reshape(a.shape)
    along = jax.tree.map(wave, start)
    shifted = lambda t: jax.tree.map(lambda a, d: a + t * d, start, along)
    above, below = (float(both(shifted(t))[0]) for t in (1e-5, -1e-5))
    products = jax.tree.map(np.vdot, jax.device_get(both(start)[1]), along)
    slope = sum(jax.tree.leaves(products))
    np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-6)


def naive_attention(q, k, v, see):
    """One head, one query at a time."""
    rows = []
    for i in range(len(q)):
        scores = [q[i] @ k[j] / len(q[i]) ** 0.5 for j in range(len(k)) if see[i, j]]
        values = [v[j] for j in range(len(k)) if see[i, j]]
        rows.append(sum(w * a for w, a in zip(softmax(scores), values, strict=True)))
    return np.stack(rows)
