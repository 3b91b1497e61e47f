"""Learners declare themselves: what stands above a constructor is all that is said of it.

`@register(...)` puts a constructor behind the boundary (`jaxmeta.boundary`) and into
`REGISTRY`. The command line, docs/learners.md and the contract tests are made from there,
so a learner that is registered is listed, runnable, documented and tested.
"""

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import jax

from jaxmeta import checks
from jaxmeta.batches import examples
from jaxmeta.boundary import learner, remembered
from jaxmeta.envs import Agent, Env
from jaxmeta.rollouts import blanked
from jaxmeta.tasks.plain import task_shapes
from jaxmeta.types import Model, Sampler

Problem = Literal["classification", "regression", "reinforcement", "recommendation"]
Constructor = TypeVar("Constructor", bound=Callable[..., Any])


class Facts(NamedTuple):
    """What the tasks determine; a constructor gets what it has arguments for."""

    ways: int | None = None  # classes of a task; None = regression
    x_dims: int = 1  # numbers in an input
    y_dims: int = 1  # numbers in a target
    length: int = 1  # support examples of a task
    classes: int | None = None  # of the whole training set
    features: int | None = None  # numbers that the encoder makes of an input
    env: Env | None = None  # where an agent acts
    items: int = 1  # that users rate


class Networks(Protocol):
    """Where a learner's networks come from: sized for the tasks, of some architecture.

    The command line makes them from flags, the tests tiny ones, the benchmarks those of
    the papers.
    """

    @property
    def facts(self) -> Facts:
        """What the tasks determine."""
        ...

    @property
    def width(self) -> int:
        """Of hidden layers."""
        ...

    def predictor(self, *, context: int = 0) -> Model:
        """Inputs -> outputs of the task; with context parameters, if there are any."""
        ...

    def encoder(self) -> Model:
        """Inputs -> [examples, features]."""
        ...

    def maps(self) -> Model:
        """Images -> feature maps."""
        ...

    def pairs(self) -> Model:
        """Two of `maps` joined along channels -> [pairs, 1]."""
        ...

    def mlp(self, inputs: int, outputs: int) -> Model:
        """[examples, inputs] -> [examples, outputs]."""
        ...

    def rater(self, outputs: int) -> Model:
        """What is known of a user and an item -> [examples, outputs]."""
        ...

    def sets(self, inputs: int, outputs: int) -> Model:
        """[examples, inputs] -> [outputs], whatever the order of the examples."""
        ...

    def attention(self, inputs: int, values: int) -> Model:
        """Attention of inputs to other inputs with values, see `models.cross_attention`."""
        ...


@dataclass(frozen=True)
class Entry:
    """One registered learner; see `register`."""

    constructor: Callable[..., Any]  # a MetaLearner, or an Agent
    paper: str
    learns: tuple[Problem, ...]
    networks: Callable[[Networks], list[Model]]
    trains_on: str
    transductive: bool
    unlabelled: bool
    keeps: tuple[str, ...]
    tiny: dict[str, Any]
    biased: bool
    run: dict[str, Any]

    @property
    def exact(self) -> bool:
        """Whether the gradient of its loss is the loss's own slope, by default."""
        adjoint = self.defaults.get("adjoint")
        return not self.biased and (adjoint is None or adjoint.exact)

    @property
    def acts(self) -> bool:
        """Whether it is an `Agent`, which learns from what it does."""
        return self.trains_on == "trials"

    @property
    def family(self) -> str:
        """What `adapt` does: the name of the folder that the constructor's file is in."""
        folders = self.constructor.__module__.split(".")[:-1]
        return folders[-1] if folders else "own"

    @functools.cached_property
    def defaults(self) -> dict[str, Any]:
        """Hyper-parameters of the constructor with their default values."""
        parameters = inspect.signature(self.constructor).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    def takes(self, argument: str) -> bool:
        """Whether the constructor has an argument of that name."""
        return argument in inspect.signature(self.constructor).parameters

    @property
    def marks(self) -> str:
        """What every table says of it: transductive, unlabelled, trains on classes."""
        said = {
            "transductive": self.transductive,
            "unlabelled": self.unlabelled,
            f"trains on {self.trains_on}": self.trains_on != "episodes",
        }
        return ", ".join(word for word, true in said.items() if true)


REGISTRY: dict[str, Entry] = {}


def register(
    *,
    paper: str,
    learns: tuple[Problem, ...],
    networks: Callable[[Networks], list[Model]],
    trains_on: str = "episodes",
    transductive: bool = False,
    unlabelled: bool | Literal["required"] = False,
    keeps: tuple[str, ...] = (),
    tiny: dict[str, Any] | None = None,
    biased: bool = False,
    run: dict[str, Any] | None = None,
) -> Callable[[Constructor], Constructor]:
    """Decorator of a constructor: its learner is behind the boundary, and in `REGISTRY`.

    Its family is the folder that its file is in.

    Args:
        paper: authors, year, arXiv number.
        learns: the kinds of task it learns.
        networks: what its first arguments are made of, e.g. `lambda n: [n.encoder()]`.
        trains_on: the name of the sampler it trains on: "episodes", or "classes",
            minibatches with labels of all classes, see `jaxmeta.tasks.classes`; it is
            tested on episodes all the same. "trials": it is an `Agent` that acts.
        transductive: whether a prediction depends on the other inputs it is asked with.
        unlabelled: whether it makes use of unlabelled support examples, or can't do
            without them ("required").
        keeps: arguments whose default suits every problem: what a data set says of other
            learners' arguments of that name is not for this one.
        tiny: arguments that suit tiny tasks, for the contract tests.
        biased: whether the gradient of its loss is by definition not the loss's slope;
            of a learner with an argument `adjoint`, the adjoint says so.
        run: what its paper says of a run (episodes, passes over them), before what a
            problem says.

    Raises: ValueError for a name that another constructor has.
    """

    def declare(make: Constructor) -> Constructor:
        name = make.__name__
        if (
            name in REGISTRY
            and REGISTRY[name].constructor.__module__ != make.__module__
        ):
            raise ValueError(
                f"register: there is a learner {name!r} in "
                f"{REGISTRY[name].constructor.__module__}; choose another name"
            )
        alone = ("regression",), ("recommendation",)
        targets = "values" if learns in alone else None
        boundary = learner(targets=targets, unlabelled=unlabelled)
        constructor: Any = (_agent if trains_on == "trials" else boundary)(make)
        REGISTRY[name] = Entry(
            constructor,
            paper,
            learns,
            networks,
            trains_on,
            transductive,
            bool(unlabelled),
            keeps,
            tiny or {},
            biased,
            run or {},
        )
        return constructor

    return declare


def _agent(make: Callable[..., Agent]) -> Callable[..., Agent]:
    """An agent's boundary: the same for the same arguments, see `boundary`, and blind for
    what stands after the end of an episode."""

    @remembered
    @functools.wraps(make)
    def constructor(*args, **kwargs):
        return blanked(make(*args, **kwargs))

    return constructor


def get(name: str) -> Entry:
    """The entry of that name.

    Raises: ValueError naming the registered learners, and the nearest one.
    """
    return checks.lookup(REGISTRY, name, "learner")


def facts_of(
    sampler: Sampler, *, classes: int | None = None, features: int | None = None
) -> Facts:
    """The numbers that a sampler's tasks determine.

    Args: sampler: of episodes; classes, features: as in `Facts`.
    """
    support = task_shapes(sampler).support
    numbers = lambda tree: sum(math.prod(a.shape[1:]) for a in jax.tree.leaves(tree))
    return Facts(
        getattr(sampler, "ways", None),
        numbers(support.x),
        numbers(support.y),
        examples(support),
        classes,
        features,
        items=getattr(sampler, "items", 1),
    )


def facts_of_env(env: Env) -> Facts:
    """What an environment's observations and actions determine."""
    return Facts(x_dims=env.obs_dims, y_dims=env.actions[0], env=env)


def build(name: str, facts: Facts, networks: Networks, **hyper: Any) -> Any:
    """The learner of that name for tasks of that kind.

    Args:
        name: of the learner. facts: what the tasks determine; the constructor gets those
            that it has arguments for, `hyper` before them.
        networks: what its networks are. hyper: its other arguments.
    Raises: ValueError for an unknown name, or whatever the constructor finds wrong.
    """
    entry = get(name)
    known = {k: v for k, v in facts._asdict().items() if entry.takes(k)}
    return entry.constructor(*entry.networks(networks), **(known | hyper))
