"""Gymnasium's environments on the host, where it is installed."""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trials import sampled

import jaxmeta as jm
from jaxmeta import keys, policies
from jaxmeta.envs import Box, Discrete, Env
from jaxmeta.rollouts import Agent, returns, trial

gymnasium = pytest.importorskip("gymnasium")
spaces = gymnasium.spaces
KEY = jax.random.key(2)


def agent_of(act, begin=None):
    """act: (params, memory, obs, last, key) -> (memory, action, log_prob, value)."""
    return Agent(lambda key: (), lambda params, support: params, begin, act)


@agent_of
def constant(params, memory, obs, last, key):
    """Its parameters are its action."""
    return memory, params, 0.0, 0.0


@agent_of
def drifting(params, memory, obs, last, key):
    """Choices by what is seen alone."""
    logits = params * jnp.sum(obs) * jnp.arange(3.0)
    action = policies.sample(logits, key)
    return memory, action, policies.log_prob(logits, action), jnp.sum(obs)


@agent_of
def trembling(params, memory, obs, last, key):
    """Numbers around what is seen."""
    policy = params * obs, jnp.zeros(2)
    action = policies.sample(policy, key)
    return memory, action, policies.log_prob(policy, action), jnp.sum(obs)


@partial(agent_of, begin=lambda adapted: jnp.zeros((), jnp.int32))
def remembering(params, memory, obs, last, key):
    """Its action counts its steps; what it says are the last reward and the last done."""
    return memory + 1, memory % 3, last.reward, last.done


def countdown(horizon=5):
    """An episode ends after as many steps as the task says; the reward is the step."""

    def step(task, state, action, key):
        state = state + 1
        reward = state + 0.1 * action + jax.random.uniform(key)
        return state, jnp.full(1, 1.0 * state), reward, state >= task

    reset = lambda task, key: (jnp.zeros((), jnp.int32), jax.random.normal(key, (1,)))
    sample = lambda key: jax.random.randint(key, (), 1, horizon)
    return Env(sample, reset, step, Discrete(3), horizon, 1)


class Ours(gymnasium.Env):
    """One of our environments and a task, as Gymnasium wants it, with `trial`'s keys."""

    def __init__(self, env, task, key, begun, moved):
        self.task, self.key, self.episode = task, key, -1
        self.begun, self.moved = begun, moved
        self.observation_space = spaces.Box(-np.inf, np.inf, (env.obs_dims,))
        self.action_space = spaces.Box(-1, 1, (env.actions[0],))
        if isinstance(env.actions, Discrete):
            self.action_space = spaces.Discrete(env.actions.n)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        self.state, obs, self.steps = self.begun(self.task, self.key, self.episode)
        return np.asarray(obs), {}

    def step(self, action):
        found = self.moved(self.task, self.state, action, self.steps, self.t)
        self.state, obs, reward, over = found
        self.t += 1
        return np.asarray(obs), float(reward), bool(over), False, {}


def on_the_host(env, tasks, key, alone=False):
    """alone: for an agent without memory, for whom each episode is the first."""

    @jax.jit
    def begun(task, key, episode):
        if alone:
            key, episode = jax.random.fold_in(key, episode), 0
        key_reset, key_steps = jax.random.split(jax.random.fold_in(key, episode))
        return *env.reset(task, key_reset), key_steps

    @jax.jit
    def moved(task, state, action, key_steps, t):
        _, key_env = jax.random.split(jax.random.fold_in(key_steps, t))
        return env.step(task, state, action, key_env)

    return [
        Ours(env, task, key, begun, moved)
        for task, key in zip(tasks, keys.tasks(key, len(tasks)), strict=True)
    ]


BANDIT = jm.envs.bandit(3, 4)
CASES = {
    "choices": (BANDIT, jm.rl2(BANDIT, hidden=4), None),
    "numbers": (jm.envs.semicircle(horizon=3), trembling, jnp.ones(())),
    "ends": (countdown(), drifting, jnp.ones(())),
}


@pytest.mark.parametrize("name", CASES)
def test_the_host_plays_what_a_compiled_trial_plays(name):
    env, agent, params = CASES[name]
    if params is None:
        params = agent.init(jax.random.key(0))
        params["policy"]["kernel"] *= 100  # what it remembers is to matter
    tasks = sampled(env, 3)

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0, 0))
    def compiled(params, task, key):
        return trial(agent, agent.adapt(params, None), env, task, key, 2)

    wanted = compiled(params, tasks, keys.tasks(KEY, 3))
    envs = on_the_host(env, tasks, KEY, alone=agent.begin is None)
    found = jm.collect(agent, params, envs, key=KEY, episodes=2, horizon=env.horizon)
    np.testing.assert_array_equal(found.mask, wanted.mask)
    counts = np.asarray(wanted.mask) > 0
    assert counts.all() == (name != "ends")
    for field, a, b in zip(found._fields, found, wanted, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype, field
        a, b = np.asarray(a)[counts], np.asarray(b)[counts]
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6, err_msg=field)


def test_an_agent_adapts_to_what_was_collected_before():
    """As in a compiled trial, each task for itself."""

    @agent_of
    def choosing(adapted, memory, obs, last, key):
        action = jax.random.categorical(key, adapted).astype(jnp.int32)
        return memory, action, adapted[action], jnp.zeros(())

    learned = lambda batch: jnp.zeros(3).at[batch.action].add(3 * batch.reward)
    adapt = lambda params, support: params + sum(map(learned, support or ()))
    agent, tasks = choosing._replace(adapt=adapt), sampled(BANDIT, 3)

    def compiled(support, task, key):
        adapted = agent.adapt(jnp.zeros(3), support)
        return trial(agent, adapted, BANDIT, task, key, 2)

    support = ()
    for seed in (2, 3):
        deal = lambda seed=seed: jax.random.key(seed)
        wanted = jax.vmap(compiled)(support, tasks, keys.tasks(deal(), 3))
        envs = on_the_host(BANDIT, tasks, deal(), alone=True)
        found = jm.collect(
            agent,
            jnp.zeros(3),
            envs,
            key=deal(),
            episodes=2,
            horizon=4,
            support=support,
        )
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found, wanted)
        support = (found,)


def test_memory_goes_from_the_end_of_an_episode_to_the_next():
    tasks = np.array([3, 1])
    envs = on_the_host(countdown(), tasks, KEY)
    found = jm.collect(remembering, (), envs, key=KEY, episodes=3, horizon=5)
    found = jax.device_get(found)
    np.testing.assert_array_equal(found.mask[0], [[1, 1, 1, 0, 0]] * 3)
    np.testing.assert_array_equal(found.mask[1], [[1, 0, 0, 0, 0]] * 3)
    for i, steps in enumerate(tasks):
        counts = found.mask[i] > 0
        action, paid, done = (a[i][counts] for a in (found[1], found[2], found[5]))
        np.testing.assert_array_equal(action, np.arange(3 * steps) % 3)
        np.testing.assert_array_equal(found.log_prob[i][counts], [0, *paid[:-1]])
        np.testing.assert_array_equal(done, [1, *[0] * (steps - 1)] * 3)
        np.testing.assert_array_equal(found.terminated[i].sum(axis=1), [1, 1, 1])


def test_it_is_compiled_once_for_all_tasks_and_steps():
    traces = []

    @agent_of
    def counted(params, memory, obs, last, key):
        traces.append(obs.shape)
        return memory, params, 0.0, 0.0

    for _ in range(2):
        envs = on_the_host(BANDIT, jnp.ones((3, 3)), KEY)
        jm.collect(counted, jnp.array(1), envs, key=KEY, episodes=2, horizon=4)
    assert traces == [(1,)]


def poles(lengths, **limits):
    """CartPoles whose poles' length is the hidden task."""

    def make(length):
        env = gymnasium.make("CartPole-v1", **limits)
        env.unwrapped.length = length
        env.unwrapped.polemass_length = length * env.unwrapped.masspole
        return env

    return [make(length) for length in lengths]


def test_cart_poles_of_hidden_lengths():
    lengths = [0.5, 0.5, 5.0]
    envs = poles(lengths)
    play = lambda envs: jm.collect(constant, jnp.array(1), envs, key=KEY, episodes=2)
    found = jax.device_get(play(envs))
    assert [env.unwrapped.length for env in envs] == lengths
    assert found.obs.shape == (3, 2, 500, 4)
    steps = found.mask.sum(axis=-1)
    np.testing.assert_array_equal(returns(found), steps)
    np.testing.assert_array_equal(found.terminated.sum(axis=-1), 1)
    assert ((steps[:2] >= 8) & (steps[:2] <= 11)).all() and (steps[2] > 15).all()
    starts = found.obs[:, :, 0].reshape(6, 4)
    assert len(np.unique(starts, axis=0)) == 6 and np.abs(starts).max() <= 0.05
    jax.tree.map(np.testing.assert_array_equal, found, jax.device_get(play(envs)))
    # step by step it is what a plain loop sees
    alone = envs[2]
    alone.reset(seed=0)
    alone.unwrapped.state = found.obs[2, 1, 0].astype(np.float64)
    for t in range(1, int(steps[2, 1])):
        obs = alone.step(1)[0]
        np.testing.assert_allclose(found.obs[2, 1, t], obs, atol=1e-5)


def test_a_limit_of_time_is_no_end():
    """Only `terminated` is recorded as such, and the mask ends with both (trap 3)."""
    play = partial(jm.collect, constant, jnp.array(1), key=KEY)
    for horizon in (None, 8):
        found = play(poles([0.5, 5.0], max_episode_steps=5), horizon=horizon)
        assert found.mask.shape == (2, 1, horizon or 5)
        np.testing.assert_array_equal(found.mask.sum(axis=-1), 5)
        assert not found.terminated.any()


@pytest.mark.parametrize(
    ("name", "actions", "horizon", "numbers"),
    [
        ("CartPole-v1", Discrete(2), 500, 4),
        ("Pendulum-v1", Box(1), 200, 3),
        ("FrozenLake-v1", Discrete(4), 100, 16),  # a Discrete observation, one-hot
    ],
)
def test_what_an_agent_has_to_know(name, actions, horizon, numbers):
    env = jm.envs.from_gymnasium(gymnasium.make(name))
    assert env[3:] == (actions, horizon, numbers)
    agent = jm.rl2(env, hidden=4)
    params = agent.init(jax.random.key(0))
    envs = [gymnasium.make(name) for _ in range(2)]
    found = jm.collect(agent, params, envs, key=KEY, horizon=2)
    assert found.obs.shape == (2, 1, 2, numbers)
    if name == "FrozenLake-v1":
        np.testing.assert_array_equal(found.obs.sum(axis=-1), 1)
    with pytest.raises(ValueError, match="on the host and can't be compiled.*collect"):
        jm.evaluate_returns(agent, params, env, key=KEY)


class Scripted(gymnasium.Env):
    """Gives what its rows say, and keeps the actions that it gets."""

    def __init__(self, *rows, actions=None):
        self.rows, self.got = rows, []
        self.observation_space = spaces.Box(-1, 1, (2,))
        self.action_space = actions or spaces.Discrete(2, start=5)

    def reset(self, *, seed=None, options=None):
        assert 0 <= seed < 2**31
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.got.append(action)
        obs, reward = self.rows[self.t]
        self.t += 1
        return np.asarray(obs, np.float32), reward, False, False, {}


FINE = ([0, 0], 1.0)


def test_actions_are_gymnasiums():
    env = Scripted(FINE, FINE)
    jm.collect(constant, jnp.array(1), [env], key=KEY, horizon=2)
    assert env.got == [6, 6] and type(env.got[0]) is int
    limits = spaces.Box(np.float32([[-1, 0]]), np.float32([[0.5, np.inf]]))
    env = Scripted(FINE, actions=limits)
    found = jm.collect(constant, jnp.array([7.0, 7.0]), [env], key=KEY, horizon=1)
    np.testing.assert_array_equal(env.got, [[[0.5, 7]]])
    assert limits.contains(env.got[0])
    np.testing.assert_array_equal(found.action[0, 0], [[7, 7]])  # as the agent chose


NAN, UNIT = float("nan"), spaces.Box(-1, 1, (2,))
BROKEN = {
    r"envs\[1\], episode 0, step 1.*finite number as the reward, got nan": (
        [0, 0],
        NAN,
    ),
    r"one finite number as the reward, got \[1": ([0, 0], np.ones(1)),
    r"step 1: expected an observation of 2 numbers.*got one of 3": ([0, 0, 0], 1.0),
    r"step 1: expected a finite observation, got \[ ?0. nan\]": ([0, NAN], 1.0),
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_an_environment_does_wrong_is_said(said):
    envs = [Scripted(FINE, FINE), Scripted(FINE, BROKEN[said])]
    with pytest.raises(ValueError, match=said):
        jm.collect(constant, jnp.array(1), envs, key=KEY, horizon=2)


def test_a_policy_that_diverged_is_said():
    for space, agent, said in (
        (spaces.Discrete(3), drifting, r"step 0 it chose .*-1, expected 0..2.*finite"),
        (UNIT, trembling, r"chose the action \[nan nan\], expected finite numbers"),
    ):
        envs = [Scripted(FINE, actions=space)]
        with pytest.raises(ValueError, match=said):
            jm.collect(agent, jnp.array(NAN), envs, key=KEY, horizon=1)


CALLS = {
    "envs: expected a list .* got Scripted": lambda: Scripted(FINE),
    "envs: expected a list": lambda: [],
    r"env: expected an environment of Gymnasium.*got 3": lambda: [3],
    "expected 2 objects, got the same one twice": lambda: [Scripted(FINE)] * 2,
    r"expected the same .* in envs\[1\]": lambda: [
        Scripted(FINE),
        Scripted(FINE, actions=UNIT),
    ],
    "expected actions of a Discrete or a floating Box, got Multi": lambda: [
        Scripted(FINE, actions=spaces.MultiDiscrete([2, 2]))
    ],
    "expected actions of type int32 .*, got float32": lambda: (
        [Scripted(FINE)],
        jnp.array(1.0),
    ),
    r"expected actions of .* shape \(\), for .*, got int32 and \(1,\)": lambda: (
        [Scripted(FINE)],
        jnp.array([1]),
    ),
    "it chose the action 2, expected 0..1": lambda: ([Scripted(FINE)], jnp.array(2)),
}


@pytest.mark.parametrize("said", CALLS)
def test_a_wrong_call_gets_a_sentence(said):
    envs = CALLS[said]()
    envs, action = envs if isinstance(envs, tuple) else (envs, jnp.array(1))
    with pytest.raises(ValueError, match=said):
        jm.collect(constant, action, envs, key=KEY, horizon=1)


def test_without_a_limit_the_horizon_has_to_be_given():
    with pytest.raises(ValueError, match="horizon: expected a number of steps"):
        jm.envs.from_gymnasium(Scripted(FINE))


def test_the_pages_program_runs():
    """The page's other programs run where Gymnasium is not installed."""
    page = Path(__file__).parents[2] / "docs" / "reinforcement.md"
    (program,) = re.findall(r"```py\n(.*?)```", page.read_text(), re.DOTALL)
    scope = {}
    exec(compile(program, str(page), "exec"), scope)
    assert scope["report"].num_tasks == 8
