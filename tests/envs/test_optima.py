"""Optima and agents against numbers of an independent program; what is simulated, in units
of its standard error."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.envs import bandit, baselines
from jaxmeta.envs.baselines import bandit_agents as agents
from jaxmeta.envs.baselines.grid_optimum import _paths
from jaxmeta.rollouts import returns, trial

slow = pytest.mark.slow
OPTIMA = {
    **{(10, 2): 6.0218, (10, 5): 6.6600, (10, 10): 6.7140, (10, 50): 6.7140},
    **{(20, 2): 12.4313, (20, 5): 14.2873, (50, 2): 31.9967, (100, 2): 64.9184},
}
COSTLY = {(20, 5), (100, 2)}


def mean_and_error(samples):
    samples = np.asarray(samples, float)
    return samples.mean(axis=0), samples.std(axis=0, ddof=1) / len(samples) ** 0.5


def total_rewards(agent, env, tasks):
    """[tasks], less what good luck a task's best arm is: the same mean, a smaller error."""
    arms = env.actions.n

    def one(key_task, key):
        task = env.sample(key_task)
        total = returns(trial(agent, (), env, task, key, 1))[0]
        return total - env.horizon * (jnp.max(task) - arms / (arms + 1))

    key_tasks, key = jax.random.split(jax.random.key(7))
    keys = jax.random.split(key_tasks, tasks), jax.random.split(key, tasks)
    return jax.jit(jax.vmap(one))(*keys)


@pytest.mark.parametrize(
    "pulls, arms",
    [pytest.param(*c, marks=slow if c in COSTLY else ()) for c in OPTIMA],
)
def test_the_bandit_optimum(pulls, arms):
    optimum = baselines.bandit_optimum(arms, pulls)
    np.testing.assert_allclose(optimum, OPTIMA[pulls, arms], atol=1e-4)


def test_the_optimum_among_listed_bandits():
    optimum = lambda *tasks, pulls: baselines.bandit_optimum(2, pulls, chances=tasks)
    assert optimum((0.1, 0.9), (0.9, 0.1), pulls=1) == 0.5
    # one pull tells them apart: only the first can be wasted
    np.testing.assert_allclose(optimum((0, 1), (1, 0), pulls=10), 9.5)
    np.testing.assert_allclose(optimum((0.3, 0.8), pulls=20), 16)  # nothing is hidden


@slow
def test_the_optimum_of_the_misc_bandit():
    chances = (0.1, 0.9), (0.9, 0.1)
    optimum = baselines.bandit_optimum(2, 100, chances=chances)
    np.testing.assert_allclose(optimum, 89.375, atol=1e-3)


AGENTS = {
    **{"random": agents.random_arm, "greedy": agents.greedy, "ucb1": agents.ucb1},
    **{"thompson": agents.thompson, "gittins": lambda arms: agents.gittins(arms, 10)},
}


@pytest.mark.parametrize("name", AGENTS)
def test_no_agent_exceeds_the_optimum(name):
    rewards = total_rewards(AGENTS[name](5), bandit(5, 10), tasks=2000)
    mean, error = mean_and_error(rewards)
    assert mean < OPTIMA[10, 5] + 3 * error
    if name == "random":
        assert abs(mean - 5) < 3 * error
    else:
        assert mean > 5 + 3 * error
    if name == "thompson":
        assert mean < OPTIMA[10, 5] - 3 * error
    if name == "gittins":
        assert mean > OPTIMA[10, 5] - 3 * error


LONG = {
    "thompson": (agents.thompson, 75.0),
    "gittins": (lambda arms: agents.gittins(arms, 100), 79.2),
}


@slow
@pytest.mark.parametrize("name", LONG)
def test_agents_of_five_arms_and_a_hundred_pulls(name):
    agent, expected = LONG[name]
    rewards = total_rewards(agent(5), bandit(5, 100), tasks=400)
    mean, error = mean_and_error(rewards)
    theirs = 0.5  # of 1,000 tasks as they come
    assert error < 0.6 * theirs and abs(mean - expected) < 3 * theirs


@slow
@pytest.mark.parametrize("pulls, arms", [(20, 5), (100, 2)])
def test_gittins_is_all_but_optimal(pulls, arms):
    agent = agents.gittins(arms, pulls)
    mean, error = mean_and_error(total_rewards(agent, bandit(arms, pulls), tasks=5000))
    assert abs(mean - OPTIMA[pulls, arms]) < 3 * error < 0.3


def test_an_agent_remembers_its_pulls():
    env, agent = bandit(3, 20), agents.ucb1(3)
    task = jnp.array([0.2, 0.5, 0.9])
    play = jax.jit(lambda key: trial(agent, (), env, task, key, 2))
    seen = jax.device_get(play(jax.random.key(0)))  # one task: it goes on
    action, reward = seen.action.ravel(), seen.reward.ravel()
    assert sorted(action[:3].tolist()) == [0, 1, 2]  # each arm once, and not again
    for t in range(3, 40):
        n = np.bincount(action[:t], minlength=3)
        means = np.bincount(action[:t], reward[:t], minlength=3) / n
        bounds = means + np.sqrt(2 * np.log(t) / n)
        assert bounds[action[t]] > bounds.max() - 1e-5


def test_gittins_indices_are_prices_at_which_an_arm_just_pays():
    indices = baselines.gittins_indices(5, prices=401)

    def profit(s, f, left, price):
        if left == 0:
            return 0
        p = (s + 1) / (s + f + 2)
        won, lost = (profit(s + w, f + 1 - w, left - 1, price) for w in (1, 0))
        return max(0, p - price + p * won + (1 - p) * lost)

    for s, f in ((0, 0), (1, 0), (0, 1), (2, 1)):
        index = indices[5 - s - f, s, f]
        assert profit(s, f, 5 - s - f, index - 1e-4) > 0
        assert profit(s, f, 5 - s - f, index + 1e-4) == 0


def mdps(tasks):
    """As drawn by Duan et al. 2016: transitions [tasks, 10, 5, 10] and mean rewards."""
    random = np.random.default_rng(0)
    transitions = random.dirichlet(np.ones(10), (tasks, 10, 5))
    rewards = random.normal(1, 1, (tasks, 10, 5))
    return transitions.astype(np.float32), rewards.astype(np.float32)


def test_value_iteration_finds_the_best_of_all_plans():
    random = np.random.default_rng(1)
    transitions = random.dirichlet(np.ones(2), (2, 2))
    rewards = random.normal(size=(2, 2))

    def gain(plan):  # [horizon, S]
        value = np.zeros(2)
        for actions in reversed(plan):
            value = rewards[[0, 1], actions] + transitions[[0, 1], actions] @ value
        return value

    plans = np.array(list(itertools.product((0, 1), repeat=6))).reshape(-1, 3, 2)
    values, greedy = baselines.value_iteration(transitions, rewards, horizon=3)
    np.testing.assert_allclose(
        values[0], np.max([gain(p) for p in plans], 0), rtol=1e-5
    )
    np.testing.assert_allclose(gain(np.asarray(greedy)), values[0], rtol=1e-5)


def test_ten_episodes_of_a_known_mdp_and_of_any_actions():
    transitions, rewards = mdps(1000)
    best = jax.jit(jax.vmap(lambda p, r: baselines.value_iteration(p, r, 10)[0][0, 0]))
    mean, error = mean_and_error(10 * best(transitions, rewards))
    assert abs(mean - 219.2) < 3 * 2**0.5 * error  # 1,000 MDPs there as well
    one_action = (a.mean(axis=2, keepdims=True) for a in (transitions, rewards))
    mean, error = mean_and_error(10 * best(*one_action))
    assert abs(mean - 100) < 3 * error


@pytest.mark.parametrize(
    "prior_mean, expected", [(0.0, 138.0), pytest.param(1.0, 133.9, marks=slow)]
)
def test_posterior_sampling_of_mdps(prior_mean, expected):
    """138: Duan et al. 2016; 133.9 with an error of 0.25: loops in numpy."""
    sample = lambda *mdp: jnp.sum(baselines.psrl(*mdp, prior_mean=prior_mean))
    keys = jax.random.split(jax.random.key(0), 1000)
    mean, error = mean_and_error(jax.jit(jax.vmap(sample))(*mdps(1000), keys))
    assert abs(mean - expected) < 3 * 2**0.5 * error  # both of 1,000 MDPs
    assert 100 + 3 * error < mean < 219.2 - 3 * error


def test_the_optimum_of_the_grid():
    optimum = baselines.grid_optimum()
    np.testing.assert_allclose(optimum, [4.0, *[11.071] * 3], atol=1e-3)
    np.testing.assert_allclose(optimum.sum(), 37.21, atol=0.005)
    states, _ = _paths(5, 15)
    assert len(states) == 196_226
    _, leftovers = baselines.first_episode()
    assert {len(cells) for cells in leftovers} == {7}


# what the independent program found, and 3 errors of a run of 2,000 goals there
SAMPLING = {
    True: ([3.01, 7.99, 10.49, 11.05], [0.36, 0.35, 0.19, 0.12]),
    False: ([0.51, 2.27, 3.71, 5.09], [0.32, 0.41, 0.44, 0.45]),
}


@pytest.mark.parametrize("redraw", [True, pytest.param(False, marks=slow)])
def test_posterior_sampling_in_the_grid(redraw):
    expected, theirs = SAMPLING[redraw]
    sample = lambda key: baselines.grid_posterior_sampling(key, redraw=redraw)
    keys = jax.random.split(jax.random.key(0), 4000)
    mean, error = mean_and_error(jax.jit(jax.vmap(sample))(keys))
    assert np.all(np.abs(mean - expected) < np.hypot(3 * error, theirs))
    assert np.all(mean <= baselines.grid_optimum() + 3 * error)


WRONG = {
    "arms": lambda: baselines.bandit_optimum(0, 10),
    "pulls": lambda: baselines.bandit_optimum(2, 2.5),
    "chances: expected an array": lambda: baselines.bandit_optimum(3, 5, chances=[[1]]),
    "chances: expected numbers": lambda: baselines.bandit_optimum(
        2, 5, chances=[[0, 2]]
    ),
    "constant": lambda: agents.ucb1(2, constant=-1),
    "prices": lambda: baselines.gittins_indices(2, prices=1),
    "horizon": lambda: baselines.value_iteration(
        jnp.ones((2, 1, 2)), jnp.ones((2, 1)), 0
    ),
    "one MDP at a time": lambda: baselines.value_iteration(*mdps(3), 2),
    "size": lambda: baselines.grid_optimum(size=2),
    "no single shortest path": lambda: baselines.grid_optimum(size=5, steps=4),
    "redraw": lambda: baselines.grid_posterior_sampling(jax.random.key(0), redraw=1),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_calls_are_said(words):
    with pytest.raises(ValueError, match=words):
        WRONG[words]()
