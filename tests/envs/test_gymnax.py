"""gymnax's environments, where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trials import mean_return, play, sampled

import jaxmeta as jm
from jaxmeta.envs.env import check_env
from jaxmeta.rollouts import returns

gymnax = pytest.importorskip("gymnax")
ARMS = ("reward_probs", "exp_reward_best")


def adapted(name, params=None, **settings):
    """Ours of gymnax's, with other parameters."""
    env, default = gymnax.make(name)
    return jm.envs.from_gymnax(env, default.replace(**(params or {})), **settings)


@pytest.mark.parametrize(
    ("name", "actions", "dims"),
    [
        ("CartPole-v1", jm.envs.Discrete(2), 4),
        ("Pendulum-v1", jm.envs.Box(1), 3),
        ("Catch-bsuite", jm.envs.Discrete(3), 50),  # an image, flattened
        ("PointRobot-misc", jm.envs.Box(2), 6),
        ("BernoulliBandit-misc", jm.envs.Discrete(2), 4),
    ],
)
def test_each_keeps_its_shapes(name, actions, dims):
    env = adapted(name)
    check_env(env)
    assert env.actions == actions and env.obs_dims == dims


def test_hidden_chances_stay_through_a_trial():
    """Who knows them gets 90 of 100 pulls, in each episode."""
    env = adapted("BernoulliBandit-misc", hidden=ARMS)
    tasks = sampled(env, 400)
    before = jax.tree.map(lambda a: np.asarray(a).tobytes(), tasks)
    best = jnp.argmax(tasks.hidden["reward_probs"], axis=-1)
    assert 0.4 < best.mean() < 0.6
    found = play(env, lambda best, obs, t, key: best, tasks, best, episodes=3)
    np.testing.assert_allclose(mean_return(found), 90, atol=0.6)
    assert before == jax.tree.map(lambda a: np.asarray(a).tobytes(), tasks)


def test_a_step_is_gymnaxs_own_and_never_a_reset():
    """PointRobot's own step resets itself, and draws a new goal, after 100 steps."""
    raw, params = gymnax.make("PointRobot-misc")
    env = jm.envs.from_gymnax(raw, params, hidden=("goal",))
    task = env.sample(jax.random.key(3))
    action, step = jnp.full(2, 0.05), jax.jit(env.step)
    state, _ = env.reset(task, jax.random.key(4))
    _, theirs = raw.reset_env(jax.random.key(4), params)
    theirs = theirs.replace(goal=task.hidden["goal"])
    their_step = jax.jit(raw.step_env)
    for i in range(105):
        key = jax.random.fold_in(jax.random.key(6), i)
        seen, theirs, paid, *_ = their_step(key, theirs, action / 10, params)
        state, obs, reward, terminated = step(
            task, state, action, jax.random.clone(key)
        )
        np.testing.assert_allclose(obs[:2], seen[:2], atol=1e-6)
        assert reward == paid and not terminated
    assert state.time == 105
    np.testing.assert_array_equal(state.goal, task.hidden["goal"])


def test_actions_are_scaled_to_the_limits():
    env = adapted("PointRobot-misc", {"center_init": True})
    task = env.sample(jax.random.key(3))
    state, _ = env.reset(task, jax.random.key(4))
    after, *_ = env.step(task, state, jnp.array([-0.5, 7.0]), jax.random.key(5))
    np.testing.assert_allclose(after.pos, [-0.05, 0.1], rtol=1e-6)


def test_only_terminated_ends_an_episode():
    left = lambda known, obs, t, key: jnp.zeros((), jnp.int32)
    fallen = adapted("CartPole-v1", {"max_steps_in_episode": 20})
    found = play(fallen, left, sampled(fallen, 8))
    steps = found.mask.sum(-1)[:, 0]
    assert (
        found.reward.shape == (8, 1, 20) and (steps >= 8).all() and (steps <= 11).all()
    )
    np.testing.assert_array_equal(returns(found)[:, 0], steps)
    late = adapted("MountainCar-v0", {"max_steps_in_episode": 20})
    found = play(late, left, sampled(late, 8))
    assert not found.terminated.any() and (found.mask == 1).all()


def test_parameters_can_be_drawn():
    raw, params = gymnax.make("CartPole-v1")
    draw = lambda key: params.replace(gravity=jax.random.uniform(key, maxval=20.0))
    tasks = sampled(jm.envs.from_gymnax(raw, draw), 20)
    assert len(np.unique(tasks.params.gravity)) == 20


def test_a_wrong_field_gets_a_sentence():
    with pytest.raises(ValueError, match="hidden: expected fields .*goal.*got 'goals'"):
        adapted("PointRobot-misc", hidden=("goals",))
