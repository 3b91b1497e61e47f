"""What each environment keeps; bandits and tables against their own statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trials import play, sampled, some_action

import jaxmeta as jm
from jaxmeta.envs.env import check_env, no_action
from jaxmeta.rollouts import returns

ENVS = {
    **{"bandit": jm.envs.bandit(), "tabular": jm.envs.tabular()},
    **{"navigation": jm.envs.navigation(), "corners": jm.envs.corners()},
    **{"semicircle": jm.envs.semicircle(), "grid": jm.envs.grid()},
    "dark_room": jm.envs.dark_room(),
    "two arms": jm.envs.bandit(2, 100, chances=((0.1, 0.9), (0.9, 0.1))),
}


@pytest.mark.parametrize("name", ENVS)
def test_each_keeps_its_shapes_and_its_task(name):
    env = ENVS[name]
    check_env(env)
    tasks = sampled(env, 3)
    before = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tasks)]
    choose = lambda known, obs, t, key: some_action(env, key)
    found = play(env, choose, tasks, episodes=2)
    again = play(env, choose, tasks, episodes=2)
    assert before == [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tasks)]
    jax.tree.map(np.testing.assert_array_equal, found, again)
    shape = 3, 2, env.horizon
    assert found.obs.shape == (*shape, env.obs_dims)
    assert found.action.shape == (*shape, *no_action(env.actions).shape)
    assert found.reward.shape == shape and np.isfinite(found.reward).all()


@pytest.mark.parametrize("name", ENVS)
def test_keys_make_tasks(name):
    tasks = jax.tree.leaves(sampled(ENVS[name], 20))[0]
    assert len(np.unique(tasks, axis=0)) > 1


def test_an_arm_pays_with_its_chance():
    chances = sampled(jm.envs.bandit(3), 300)
    assert abs(chances.mean() - 1 / 2) < 0.03 and abs(chances.var() - 1 / 12) < 0.01
    arm = jnp.arange(300) % 3
    pull = lambda arm, obs, t, key: arm
    found = play(jm.envs.bandit(3, 400), pull, chances, arm)
    assert set(np.unique(found.reward)) == {0, 1} and not found.obs.any()
    p = np.asarray(chances)[np.arange(300), arm]
    z = (found.reward.mean((1, 2)) - p) / np.sqrt(p * (1 - p) / 400)
    assert abs(np.mean(np.square(z)) - 1) < 0.4 and abs(z.mean()) < 0.3


def test_given_chances_come_in_rows():
    tasks = sampled(ENVS["two arms"], 400)
    first = np.isclose(tasks, [0.1, 0.9]).all(1)
    assert (first | np.isclose(tasks, [0.9, 0.1]).all(1)).all()
    assert abs(first.mean() - 1 / 2) < 0.1


def test_tables_are_flat_dirichlet_and_normal():
    mdp = sampled(jm.envs.tabular(), 200)
    np.testing.assert_allclose(mdp.transitions.sum(-1), 1, rtol=1e-5)
    # a component is Beta(1, 9): its variance is 9 / (10^2 11)
    assert abs(mdp.transitions.mean() - 1 / 10) < 1e-6
    assert abs(mdp.transitions.var() - 9 / 1100) < 2e-4
    assert abs(mdp.rewards.mean() - 1) < 0.05 and abs(mdp.rewards.var() - 1) < 0.05


def optimal(mdp, horizon=10):
    """Actions [tasks, horizon, states] and values of state 0 [tasks], backwards in time."""
    transitions, rewards = map(np.float64, mdp)
    value, actions = np.zeros(rewards.shape[:2]), []
    for _ in range(horizon):
        found = rewards + np.einsum("nsat,nt->nsa", transitions, value)
        value, actions = found.max(-1), [found.argmax(-1), *actions]
    return np.stack(actions, 1), value[:, 0]


def test_tables_pay_what_dynamic_programming_says():
    """10 episodes of a known MDP are worth 219.2, random ones 100."""
    env, mdp = ENVS["tabular"], sampled(ENVS["tabular"], 2000)
    actions, value = optimal(mdp)
    assert abs(10 * value.mean() - 219.2) < 1.5
    known = jnp.asarray(actions), jnp.arange(2000) % 2  # one half knows

    def choose(known, obs, t, key):
        actions, random = known
        best = actions[t, jnp.argmax(obs)]
        return jnp.where(random, jax.random.randint(key, (), 0, 5), best)

    total = returns(play(env, choose, mdp, known))[:, 0]
    assert abs(np.mean((total - value)[::2])) < 3 * 4 / np.sqrt(1000)
    assert abs(total[1::2].mean() - 10) < 0.5


def test_tables_move_by_their_transitions():
    mdp = sampled(jm.envs.tabular(3, 2), 1)
    env = jm.envs.tabular(3, 2, horizon=20_000)
    choose = lambda known, obs, t, key: jax.random.randint(key, (), 0, 2)
    found = play(env, choose, mdp)
    state, action = found.obs[0, 0].argmax(-1), found.action[0, 0]
    assert state[0] == 0
    counts, paid = np.zeros((3, 2, 3)), np.zeros((3, 2))
    np.add.at(counts, (state[:-1], action[:-1], state[1:]), 1)
    np.add.at(paid, (state, action), found.reward[0, 0])
    n = counts.sum(-1)
    np.testing.assert_allclose(counts / n[..., None], mdp.transitions[0], atol=0.06)
    np.testing.assert_allclose(paid / n, mdp.rewards[0], atol=0.12)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: jm.envs.bandit(0), "arms"),
        (lambda: jm.envs.bandit(2, 0), "pulls"),
        (lambda: jm.envs.bandit(chances=((0.1, 0.9),)), "chances"),  # five arms
        (lambda: jm.envs.bandit(2, chances=((0.1, 1.9),)), "chances"),
        (lambda: jm.envs.bandit(2, chances=((0.1, float("nan")),)), "chances"),
        (lambda: jm.envs.bandit(2, chances=()), "chances"),
        (lambda: jm.envs.bandit(2, chances=((0.1,), (0.1, 0.9))), "chances"),
        (lambda: jm.envs.tabular(0), "states"),
        (lambda: jm.envs.tabular(actions=1.5), "actions"),
        (lambda: jm.envs.tabular(horizon=0), "horizon"),
        (lambda: jm.envs.navigation(squared=1), "squared"),
        (lambda: jm.envs.corners(bound=0), "bound"),
        (lambda: jm.envs.semicircle(horizon=0), "horizon"),
        (lambda: jm.envs.grid(2), "size"),
        (lambda: jm.envs.dark_room(1), "size"),
        (lambda: jm.envs.from_gymnax("CartPole-v1"), "env"),
        (lambda: jm.envs.from_gymnasium("CartPole-v1"), "env"),
    ],
)
def test_a_wrong_argument_gets_a_sentence(call, argument):
    with pytest.raises(ValueError, match=rf"\b{argument}\b.*expected"):
        call()
