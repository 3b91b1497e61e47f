"""What every registered learner keeps. A learner without a row can't exist: the rows
are the registry."""

import inspect
from functools import lru_cache

import docstring_parser
import jax
import jax.numpy as jnp
import pytest
from problems import (
    AGENTS,
    CORE,
    ONE_EACH,
    ROWS,
    TinyNetworks,
    make,
    row,
    training_sampler,
)

import jaxmeta as jm
from jaxmeta import learners, testing
from jaxmeta.learners.registry import build, facts_of_env

# promises that cost much and hardly depend on the problem: one row a learner
ONCE = {
    *("jit_equals_eager", "tasks_at_once_change_no_number", "gradient_is_the_slope"),
    *("masked_examples_change_no_gradient", "bytes_are_images"),
    *("half_precision_is_learnt_from", "state_is_stable", "same_key_same_result"),
    *("loss_falls", "what_cannot_be_learnt_from_is_nan"),
    "masked_examples_change_nothing",
}
# of the boundary, which is one for all: a learner of each family
OF_THE_BOUNDARY = {"bytes_are_images"}
# traced, not compiled: for every learner on the newest packages, too
CHEAP = {"state_is_stable"}
# their outputs are a network's, whose classes are not made of the support set's examples
OPEN = {"mann", "snail", "in_context", "oml", "anml"}
PROMISED = [
    row(
        name,
        problem,
        promise,
        core=promise in CHEAP or (name in CORE and promise not in OF_THE_BOUNDARY),
    )
    for name, problem in ROWS
    for promise in testing.PROMISES
    if promise not in ONCE or (name, problem) in ONE_EACH
    if promise not in OF_THE_BOUNDARY or name in CORE
]
registered = pytest.mark.parametrize("name", learners.REGISTRY)


@pytest.fixture(scope="module")
def trial(blobs):
    """One of a row for all promises, since compiling is what takes the time."""
    made = {}

    def get(name, problem):
        if (name, problem) not in made:
            with jax.enable_x64(False):  # whichever test asks first
                learner, sampler = make(name, problem, blobs)
                entry = learners.REGISTRY[name]
                made[name, problem] = testing.Trial(
                    learner,
                    sampler,
                    training_sampler(name, sampler, blobs),
                    exact=entry.exact,
                    transductive=entry.transductive,
                    unlabelled=entry.unlabelled,
                    closed=entry.takes("ways") and name not in OPEN,
                )
        return made[name, problem]

    return get


@pytest.mark.parametrize(("name", "problem", "promise"), PROMISED)
def test_contract(trial, name, problem, promise):
    testing.PROMISES[promise](trial(name, problem))


def levers():
    """One of two arms pays, always; what is seen is 1, which a network can scale."""
    arms = jm.envs.bandit(arms=2, pulls=4, chances=((0, 1), (1, 0)))
    seen = jnp.ones(1)
    reset = lambda task, key: (arms.reset(task, key)[0], seen)

    def step(*given):
        state, _, reward, over = arms.step(*given)
        return state, seen, reward, over

    return arms._replace(reset=reset, step=step)


ARMS = levers()


@pytest.fixture(scope="module")
def agent_trial():
    """One of an agent for all promises."""

    @lru_cache
    def get(name):
        networks = TinyNetworks(facts_of_env(ARMS))
        entry = learners.REGISTRY[name]
        agent = build(name, networks.facts, networks, **entry.tiny)
        return testing.AgentTrial(agent, ARMS, episodes=1 if agent.begin else 6)

    return get


@pytest.mark.parametrize("promise", testing.AGENT_PROMISES)
@pytest.mark.parametrize("name", [row(n, core=n in CORE) for n in AGENTS])
def test_contract_of_agents(agent_trial, name, promise):
    testing.AGENT_PROMISES[promise](agent_trial(name))


def test_the_core_has_a_learner_of_each_family():
    families = [learners.REGISTRY[name].family for name in CORE]
    assert sorted(families) == sorted({e.family for e in learners.REGISTRY.values()})


@registered
def test_constructor_is_documented(name):
    """The command line's help is made from it."""
    constructor = learners.REGISTRY[name].constructor
    assert name == constructor.__name__
    said = docstring_parser.parse(inspect.getdoc(constructor)).params
    parameters = inspect.signature(constructor).parameters
    assert parameters.keys() <= {p.arg_name for p in said}
    assert getattr(jm, name) is constructor


@pytest.mark.slow
def test_a_users_learner_is_held_to_the_same(blobs):
    """Ones that each break a promise; its docstring has one that keeps them all."""
    sampler = jm.tasks.sinusoid(shots=5, queries=5)
    network = jm.models.mlp(hidden=(8,))
    good = jm.maml(network, inner_lr=0.01, loss=jm.losses.mse)
    unseen = lambda params, task, key=None: good.loss(
        params, task._replace(query=task.query._replace(mask=None)), key
    )
    constant = lambda params, task, key=None: jax.tree.map(
        lambda a: a + 1e-3 * jnp.sum(jax.lax.stop_gradient(params["head"]["bias"])),
        good.loss(params, task, key),
    )
    with pytest.raises(AssertionError, match="masked_examples_change_nothing: "):
        jm.testing.check_learner(good._replace(loss=unseen), sampler)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        trial = testing.Trial(good._replace(loss=constant), sampler)
        testing.gradient_is_the_slope(trial)
    episodes = jm.tasks.episodes(blobs, 3, shots=2, queries=3)
    tim = jm.tim(jm.models.mlp(6, 8, (16,)), classes=20, ways=3, features=8)
    with pytest.raises(AssertionError, match="transductive=False is not true"):
        testing.transductive_or_not(testing.Trial(tim, episodes))
