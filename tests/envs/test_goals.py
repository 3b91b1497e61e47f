"""Goals on the plane and in grids: returns in closed form, or of loops not of ours."""

import jax
import jax.numpy as jnp
import numpy as np
from trials import glide_to, mean_return, play, sampled, some_action, walk_to

import jaxmeta as jm
from jaxmeta.envs.moves import all_cells, walk
from jaxmeta.rollouts import returns


def plane(n):
    """Goals [n^2, 2] in the middles of the cells of [-0.5, 0.5]^2."""
    side = (np.arange(n) + 0.5) / n - 0.5
    return np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype(np.float32)


def test_navigation_costs_what_it_costs():
    env, still = jm.envs.navigation(), jnp.asarray(plane(60))
    drawn = sampled(env, len(still))  # noisy walks cost goals on an even grid less
    goals = jnp.concatenate([still, still, drawn, drawn])
    rows = jnp.array([(0, 0), (1, 0), (1, 0.05), (1, 0.1)])  # whether to go, noise
    known = goals, jnp.repeat(rows, len(still), axis=0)

    def choose(known, obs, t, key):
        goal, (goes, noise) = known
        return goes * glide_to(goal, obs) + noise / 0.1 * jax.random.normal(key, (2,))

    total = returns(play(env, choose, goals, known)).reshape(4, -1).mean(1)
    np.testing.assert_allclose(total[:2], [-38.26, -0.506], atol=0.01)
    np.testing.assert_allclose(total[2:], [-2.35, -5.82], rtol=0.03)


def test_navigation_ends_at_the_goal_and_may_pay_squares():
    goals = plane(40)
    found = play(jm.envs.navigation(), glide_to, goals)
    steps = np.maximum(np.ceil((np.abs(goals).max(1) - 0.01) / 0.1), 1)
    np.testing.assert_array_equal(found.mask[:, 0].sum(-1), steps)
    squared = jm.envs.navigation(squared=True, horizon=3)
    stay = lambda goal, obs, t, key: jnp.zeros(2)
    paid = play(squared, stay, goals).reward[:, 0]
    right = np.broadcast_to(-np.square(goals).sum(1)[:, None], paid.shape)
    np.testing.assert_allclose(paid, right, rtol=1e-6)
    assert abs(100 * paid.mean() - -16.67) < 0.02


def test_navigations_goals_fill_the_square():
    goals = np.asarray(sampled(jm.envs.navigation(), 2000))
    assert np.abs(goals).max() <= 0.5 and np.abs(goals.mean(0)).max() < 0.03
    np.testing.assert_allclose(goals.var(0), 1 / 12, atol=0.006)


def test_semicircle_costs_what_it_costs():
    angle = (np.arange(500) + 0.5) / 500 * np.pi
    goals = jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], 1), jnp.float32)
    goes = jnp.arange(1000) < 500
    choose = lambda known, obs, t, key: known[1] * glide_to(known[0], obs)
    tasks = jnp.tile(goals, (2, 1))
    found = play(jm.envs.semicircle(), choose, tasks, (tasks, goes))
    total = returns(found).reshape(2, -1).mean(1)
    np.testing.assert_allclose(total, [-3.84, -100], atol=0.005)
    angles = np.arctan2(*np.asarray(sampled(jm.envs.semicircle(), 2000)).T[::-1])
    assert angles.min() > 0 and abs(angles.mean() - np.pi / 2) < 0.07
    assert abs(angles.std() - np.pi / np.sqrt(12)) < 0.04


def test_corners_pay_progress_in_the_goals_quadrant_only():
    env = jm.envs.corners()
    tasks = sampled(env, 400)
    choose = lambda known, obs, t, key: some_action(env, key)
    found = play(env, choose, tasks)
    before, reward = np.asarray(found.obs)[:, 0], np.asarray(found.reward)[:, 0]
    before, after, reward = before[:, :-1], before[:, 1:], reward[:, :-1]
    goal = np.asarray(tasks)[:, None]
    inside = np.all(after * goal > 0, -1) & (np.abs(after).sum(-1) >= 0.5)
    assert not reward[~inside].any() and 0.1 < inside.mean() < 0.5
    away = lambda position: np.linalg.norm(position - goal, axis=-1)
    np.testing.assert_allclose(
        reward[inside], (away(before) - away(after))[inside], atol=1e-5
    )
    assert np.abs(after - before).max() < 0.2 + 1e-5
    assert np.abs(before[:, 0]).max() <= 0.2 and np.abs(before[:, 0]).max() > 0.19


def go_or_pace(known, obs, t, key):
    """On to the goal; or, until 11 steps are left, in and out of the rhombus."""
    goal, paces = known
    back = paces & (jnp.sum(jnp.abs(obs)) >= 0.5) & (t < 89)
    return jnp.where(back, -jnp.sign(goal), (goal - obs) / 0.2)


def test_corners_pay_pacing_more_than_arriving():
    env = jm.envs.corners()
    tasks = sampled(env, 1000)
    known = tasks, jnp.arange(1000) < 500
    found = play(env, go_or_pace, tasks, known)
    total = np.asarray(returns(found))[:, 0]
    # who goes straight is paid the distance from where the first paid step began
    first = np.argmax(found.reward[500:, 0] != 0, axis=-1)
    began = np.asarray(found.obs)[500 + np.arange(500), 0, first]
    away = np.linalg.norm(began - tasks[500:], axis=-1)
    np.testing.assert_allclose(total[500:], away, atol=1e-4)
    assert abs(total[500:].mean() - 2.63) < 0.03
    assert abs(total[:500].mean() - 15.04) < 0.1


def test_authors_corners_take_larger_actions():
    ours, theirs = (jm.envs.corners(bound=bound) for bound in (1, 10))
    goal, key = jnp.full(2, 2.0), jax.random.key(0)
    one = ours.step(goal, goal, jnp.array([-0.5, -7]), key)
    ten = theirs.step(goal, goal, jnp.array([-5.0, -70]), key)
    np.testing.assert_allclose(one[0], [1.9, 1.8], rtol=1e-6)
    jax.tree.map(np.testing.assert_allclose, one, ten)


def test_a_known_goal_of_the_grid_is_worth_11_071_an_episode():
    cells = all_cells(5)
    goals = cells[cells.max(1) > 1]
    assert len(goals) == 21
    found = mean_return(play(jm.envs.grid(), walk_to, jnp.asarray(goals), episodes=2))
    np.testing.assert_allclose(found, 11.071, atol=5e-4)
    drawn, counts = np.unique(sampled(jm.envs.grid(), 2100), axis=0, return_counts=True)
    np.testing.assert_array_equal(drawn, goals)
    assert np.sum(np.square(counts - 100) / 100) < 45  # chi^2 of 20 degrees: p = 0.001


def test_a_known_goal_of_the_dark_room_is_worth_16_54():
    goals = jnp.asarray(all_cells(9))
    found = mean_return(play(jm.envs.dark_room(), walk_to, goals))
    # a goal d steps away pays from step d on, 21 - d times, and 20 times where d = 0
    np.testing.assert_allclose(found, 21 - 40 / 9 - 1 / 81, rtol=1e-6)
    assert len(np.unique(sampled(jm.envs.dark_room(), 2000), axis=0)) == 81


def test_walls_stop():
    moves = jax.vmap(walk, (None, 0, None))
    corner = moves(jnp.array([0, 0]), jnp.arange(5), 3)
    other = moves(jnp.array([2, 2]), jnp.arange(5), 3)
    np.testing.assert_array_equal(corner, [[0, 0], [0, 1], [1, 0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(other, [[2, 2], [2, 2], [2, 2], [2, 1], [1, 2]])
