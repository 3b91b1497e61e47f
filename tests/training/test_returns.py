"""What is no number, or no action, is said and never averaged in silence."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta as jm
from jaxmeta import policies
from jaxmeta.envs import Box, Discrete, Env
from jaxmeta.envs.env import guarded
from jaxmeta.rollouts import Agent

KEY = jax.random.key(0)


def line(actions=Discrete(2), pays=lambda task, state: 1.0):
    """Two steps an episode; it pays whatever the action."""

    def step(task, state, action, key):
        return state + 1, jnp.zeros(1), jnp.float32(pays(task, state)), state < -1

    sample = lambda key: jax.random.randint(key, (), 0, 4)
    reset = lambda task, key: (jnp.zeros((), jnp.int32), jnp.zeros(1))
    return Env(sample, reset, step, actions, 2, 1)


def chooses(action):
    act = lambda params, memory, obs, last, key: (memory + 1, action(memory), 0.0, 0.0)
    return Agent(lambda key: (), lambda params, support: (), lambda adapted: 0, act)


def blind(first, policy):
    """Acts by its parameters alone; first: they, untrained, policy: of them."""

    def act(params, memory, obs, last, key):
        action = policies.sample(policy(params), key)
        log_prob = policies.log_prob(policy(params), action)
        return memory, action, log_prob, jnp.zeros(())

    def predict(params, rollouts):
        shape = rollouts.reward.shape
        spread = lambda a: jnp.broadcast_to(a, (*shape, *a.shape))
        return jax.tree.map(spread, policy(params)), jnp.zeros(shape)

    as_it_is = lambda params, support: params

    def loss(params, batches, others=0.0):
        log_probs = policies.log_prob(
            predict(params, batches[-1])[0], batches[-1].action
        )
        return -jnp.mean(log_probs * batches[-1].reward), {}

    return Agent(lambda key: first, as_it_is, None, act, predict, loss)


def earned(action, env, episodes=2):
    how = {"episodes": episodes, "num_tasks": 20, "key": KEY}
    return jm.evaluate_returns(chooses(action), (), env, **how)


SPOILED = {
    "a reward": (lambda t: 0, line(pays=lambda task, t: jnp.where(task, 1.0, jnp.nan))),
    "an infinite reward": (
        lambda t: 0,
        line(pays=lambda task, t: jnp.where(task, 1.0, -jnp.inf)),
    ),
    "an action too large": (lambda t: jnp.where(t == 3, 2, 1), line()),
    "an action below 0": (lambda t: -1, line()),
    "numbers": (lambda t: jnp.array([0.0, jnp.nan]), line(Box(2))),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_task_that_came_to_nan_is_counted(name):
    """Also where it came to that in the second episode alone."""
    report = earned(*SPOILED[name])
    spoiled = 20 if "reward" not in name else report.diverged
    assert 0 < report.diverged == spoiled and f"{spoiled} diverged" in str(report)
    assert not np.isfinite(report.mean["return"])
    finite = np.isfinite(report.per_task["return"])
    assert finite.sum() == 20 - spoiled
    np.testing.assert_array_equal(report.per_task["return"][finite], 2)
    if name == "an action too large":
        assert np.isfinite(report.mean["episode_1"])


def test_what_is_sound_is_left_as_it_is():
    env, task = jm.envs.bandit(3, 4), jnp.array([0.0, 0.5, 1.0])
    plain, found = (
        jax.jit(lambda arm, env=env: env.step(task, (), arm, jax.random.key(0)))
        for env in (env, guarded(env))
    )
    for arm in range(3):
        jax.tree.map(np.testing.assert_array_equal, plain(arm), found(arm))


def test_an_agent_of_other_actions_is_refused():
    for action, said in (
        (0.0, r"type int32 and shape \(\), for Discrete\(n=2\), got float32"),
        (
            jnp.zeros(1, jnp.int32),
            r"type int32 and shape \(\), for .*, got int32 and \(1,\)",
        ),
    ):
        with pytest.raises(ValueError, match=f"agent: expected actions of {said}"):
            earned(lambda t, action=action: action, line(), episodes=1)


@pytest.mark.parametrize("actions", [Discrete(2), Box(2)], ids=["choices", "numbers"])
def test_a_policy_that_diverged_earns_nothing(actions):
    """Of NaN logits JAX would draw action 0."""
    numbers = isinstance(actions, Box)
    agent = blind(None, lambda params: (params, 0 * params) if numbers else params)
    report = lambda params: jm.evaluate_returns(
        agent, params, line(actions), num_tasks=3, key=jax.random.key(3)
    )
    assert report(jnp.full(2, jnp.nan)).diverged == 3
    assert report(jnp.ones(2)).mean["return"] == 2


def test_training_skips_a_batch_with_a_reward_that_is_nan():
    env = line(pays=lambda task, t: jnp.where(task, 1.0, jnp.nan))
    agent = blind(jnp.ones(2), lambda params: params)
    outer = jm.policy_gradient(
        agent, env, optax.sgd(0.1), tasks_per_step=16, epochs=1, minibatches=1
    )
    with pytest.warns(RuntimeWarning, match="2 of the 2 meta-steps .* not finite"):
        state = jm.fit(outer, None, steps=2, key=jax.random.key(4), chunk=2)
    assert int(state.step) == 2
    np.testing.assert_array_equal(state.params, np.ones(2))


def test_reports_are_of_recorded_trials():
    paid = np.float32([[1.0, 2.0], [3.0, 5.0], [2.0, 2.0]])[..., None]
    played = jm.Rollouts(*[np.ones_like(paid)] * 7)._replace(reward=paid)
    report = jm.report_returns(chooses(lambda t: 0), played)
    assert report.mean == {
        "return": 2.5,
        "total": 5.0,
        "episode_1": 2.0,
        "episode_2": 3.0,
    }
    assert "(3 tasks)" in str(report)  # of how many it is, is always said (trap 12)
    report = jm.report_returns(blind(None, None), played, played)
    assert report.mean == {"return": 2.5, "return_0": 2.5}
    one_task = jax.tree.map(lambda a: a[0], played)
    for batches, said in (
        ((), "batches: expected recorded jm.Rollouts, got none"),
        ((3,), "batches: expected a jm.Rollouts"),
        ((one_task,), "tasks, episodes, steps"),
    ):
        with pytest.raises(ValueError, match=said):
            jm.report_returns(chooses(lambda t: 0), *batches)
