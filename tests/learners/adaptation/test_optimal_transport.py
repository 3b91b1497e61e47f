"""Optimal transport: numbers that our code did not produce."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_points import close, distances, start
from few_points import transport as linear_program

import jaxmeta as jm
from jaxmeta.learners.adaptation.optimal_transport import (
    Side,
    barycentres,
    carried,
    masses,
    transport,
    unit_cost,
)

pytestmark = pytest.mark.usefixtures("x64")

RANDOM = np.random.default_rng(0)
N, WAYS = 14, 2
Z = RANDOM.normal(size=(N, 3))
SOURCE = (np.arange(N) % 2 == 0).astype(float)
TARGET = 1 - SOURCE
SOURCE[0] = 0  # padding
Y = np.where(SOURCE > 0, np.arange(N) // 2 % WAYS, -1)
SUPPORT = jm.Batch(Z, Y, SOURCE + TARGET)
X_S, X_T, Y_S = Z[SOURCE > 0], Z[TARGET > 0], Y[SOURCE > 0]
COST = distances(X_S, X_T) / distances(X_S, X_T).mean()
HOW = "regularization", "iterations", "class_penalty", "rounds"  # of one program


def sinkhorn(cost, regularization, iterations=2000):
    """Equal masses, in numpy: rows and columns in turn."""
    n, m = cost.shape
    k, v = np.exp(-cost / regularization), np.ones(m)
    for _ in range(iterations):
        u = 1 / n / (k @ v)
        v = 1 / m / (u @ k)
    return u[:, None] * k * v[None, :]


def slopes(gamma, y, kind):
    """grad Omega_c, one class and column after the other."""
    found = np.zeros_like(gamma)
    for c in np.unique(y):
        for j in range(gamma.shape[1]):
            mass = gamma[y == c, j]
            if kind == "group_lasso":
                found[y == c, j] = mass / np.sqrt(np.sum(mass**2))
            else:
                found[y == c, j] = 0.5 / np.sqrt(np.sum(mass) + 1e-3)
    return found


def conditional_gradient(kind, eta, regularization, rounds):
    gamma = sinkhorn(COST, regularization)
    for k in range(rounds):
        toward = sinkhorn(COST + eta * slopes(gamma, Y_S, kind), regularization)
        alpha = 2 / (k + 3) if kind == "group_lasso" else 1
        gamma = gamma + alpha * (toward - gamma)
    return gamma


@partial(jax.jit, static_argnames=HOW)
def planned(z, source, target, onehot, **how):
    cost = unit_cost(Side(z, source), Side(z, target))
    return transport(cost, source / source.sum(), target / target.sum(), onehot, **how)


def plan(**how):
    """gamma of the source's rows and the target's columns."""
    source, target, z = map(jnp.asarray, (SOURCE, TARGET, Z))
    onehot = jnp.asarray((Y[:, None] == np.arange(WAYS)) * 1.0)
    found = planned(z, source, target, onehot, **how)
    outside = np.asarray(found)[np.ix_(SOURCE == 0, TARGET == 0)]
    assert not outside.any()
    return np.asarray(found)[np.ix_(SOURCE > 0, TARGET > 0)]


@pytest.mark.parametrize("kind", ["none", "group_lasso", "half_power"])
def test_plan_is_that_of_numpy(kind):
    how = {"regularization": 0.2, "iterations": 2000, "class_penalty": kind}
    found = plan(**how, eta=0.1, rounds=4)
    rounds = 0 if kind == "none" else 4
    close(found, conditional_gradient(kind, 0.1, 0.2, rounds), 1e-8)
    close(found.sum(axis=1), np.full(len(X_S), 1 / len(X_S)))
    close(found.sum(axis=0), np.full(len(X_T), 1 / len(X_T)))


@pytest.mark.parametrize("kind", ["group_lasso", "half_power"])
def test_a_class_penalty_lowers_what_it_says(kind):
    """<gamma, C> + lambda sum gamma log gamma + eta Omega_c, and two classes at a place."""
    how = {"regularization": 0.2, "iterations": 500, "eta": 0.5}

    def value(gamma):
        of = [gamma[c == Y_S] for c in range(WAYS)]
        if kind == "group_lasso":
            omega = sum(np.sqrt((g**2).sum(axis=0)).sum() for g in of)
        else:
            omega = sum(np.sqrt(g.sum(axis=0) + 1e-3).sum() for g in of)
        return np.sum(gamma * COST + 0.2 * gamma * np.log(gamma)) + 0.5 * omega

    values = [value(plan(**how, class_penalty=kind, rounds=r)) for r in (1, 4, 32)]
    assert value(plan(**how)) > values[0] and np.all(np.diff(values) < 1e-9)
    # every plan of these masses near the end is no better
    end = plan(**how, class_penalty=kind, rounds=100)
    for _ in range(20):
        swap = np.zeros_like(end)
        (a, b), (c, d) = RANDOM.choice(len(X_S), 2, False), RANDOM.choice(7, 2, False)
        swap[a, c], swap[b, d], swap[a, d], swap[b, c] = 1, 1, -1, -1
        if kind == "group_lasso":  # convex: the minimum
            assert value(end + 1e-3 * end.min() * swap) > value(end) - 1e-7

    def mixed(gamma):
        of = [gamma[c == Y_S].sum(axis=0) for c in range(WAYS)]
        return np.minimum(*of).sum()

    assert mixed(end) < mixed(plan(**how))


def test_without_entropy_it_is_the_linear_program_and_a_permutation():
    small = plan(regularization=0.005, iterations=20_000)
    n, m = COST.shape
    exact = linear_program(COST, np.full(n, 1 / n), np.full(m, 1 / m))
    assert abs(np.sum(small * COST) - np.sum(exact * COST)) < 1e-3

    # the target is the source, shifted and in another order: each goes to its own
    random = np.random.default_rng(3)
    x = np.eye(5) * 4 + 0.1 * random.normal(size=(5, 5))
    order = random.permutation(5)
    z, sides = np.concatenate([x, x[order] + 0.5]), np.repeat([1.0, 0.0], 5)
    given = [jnp.asarray(a) for a in (z, sides, 1 - sides)]
    gamma = planned(*given, jnp.zeros((10, 2)), regularization=0.01)
    close(5 * np.asarray(gamma)[:5, 5:], np.eye(5)[:, order], 1e-8)
    close(barycentres(gamma, jnp.asarray(z))[:5], x + 0.5, 1e-8)
    assert not np.asarray(barycentres(gamma, jnp.asarray(z)))[5:].any()


def divided(of_source, of_target, n=120):
    """z [n, 2], onehot, source, target; in random order, the rest is padding."""
    random = np.random.default_rng(4)
    sides = np.repeat([0, 1, 2], [of_source, of_target, n - of_source - of_target])
    sides = random.permutation(sides)
    source, target = ((sides == k) * 1.0 for k in (0, 1))
    z = random.normal(size=(n, 2)) + sides[:, None]
    onehot = (random.integers(WAYS, size=n)[:, None] == np.arange(WAYS)) * 1.0
    return [jnp.asarray(a) for a in (z, onehot * source[:, None], source, target)]


SHORT = 16  # iterations; no more are by logarithms alone, half as much to compile


def moved(*given, **few):
    def plan(source, target, onehot):
        cost, columns = unit_cost(source, target), masses(target.weights)
        how = {"class_penalty": "half_power", "rounds": 1, "iterations": SHORT}
        rows = masses(source.weights)
        return transport(cost, rows, columns, onehot, regularization=0.3, **how)

    return carried(plan, *given, **few)


@partial(jax.jit, static_argnames="few")
def moved_and_slope(z, *others, **few):
    weights = np.cos(np.arange(z.size)).reshape(z.shape)
    found, pull = jax.vjp(lambda z: moved(z, *others, **few), z)
    return found, pull(jnp.asarray(weights))[0]


# neither has more than half, padding or none; one of them has
@pytest.mark.parametrize("counts", [(60, 60), (60, 40), (90, 30), (10, 105)])
def test_half_of_the_examples_are_enough_where_no_domain_has_more(counts):
    z, *others = map(np.asarray, divided(*counts))
    found, slope = moved_and_slope(z, *others)
    source, target = (side > 0 for side in others[1:])
    assert not np.asarray(found)[~source].any()

    cost = distances(z[source], z[target])
    cost, y = cost / cost.mean(), np.argmax(others[0][source], axis=1)
    gamma = sinkhorn(cost, 0.3, SHORT)
    gamma = sinkhorn(cost + 0.1 * slopes(gamma, y, "half_power"), 0.3, SHORT)
    expected = gamma @ z[target] / gamma.sum(axis=1, keepdims=True)
    close(np.asarray(found)[source], expected, 1e-6)

    every, of_every = moved_and_slope(z, *others, few=1000)
    close(found, every)
    close(slope, of_every)


def test_tasks_of_other_shares_are_moved_together():
    tasks = [divided(60, 60), divided(90, 30)]
    together = jax.jit(jax.vmap(moved))(*map(np.stack, zip(*tasks, strict=True)))
    for found, task in zip(np.asarray(together), tasks, strict=True):
        close(found, jax.jit(moved)(*task))


def test_the_classifier_sees_the_barycentres():
    """One step of softmax regression from zero, by hand."""
    learner = jm.optimal_transport(
        None,
        ways=WAYS,
        regularization=0.2,
        iterations=2000,
        inner_lr=1.0,
        inner_steps=1,
    )
    params = learner.init(jax.random.key(0))
    assert not jax.tree.leaves(params)
    adapted = jax.jit(learner.adapt)(params, SUPPORT)
    gamma = sinkhorn(COST, 0.2)
    moved = gamma @ X_T / gamma.sum(axis=1, keepdims=True)
    residual = np.eye(WAYS)[Y_S] - 1 / WAYS
    close(adapted.head.w, moved.T @ residual / len(X_S), 1e-8)
    close(adapted.head.b, residual.mean(axis=0), 1e-8)
    logits = Z @ np.asarray(adapted.head.w) + np.asarray(adapted.head.b)
    close(jax.jit(learner.predict)(adapted, Z), logits)


def test_a_head_is_a_network_whose_start_is_learned():
    head = jm.models.mlp(3, WAYS, (4,))
    learner = jm.optimal_transport(None, head=head, ways=WAYS, inner_steps=3)
    params = start(learner)
    assert list(params) == ["head"]
    task = jm.Task(SUPPORT, jm.Batch(X_T, np.arange(len(X_T)) % WAYS))
    loss = jax.jit(lambda p: learner.loss(p, task)[0])
    slope = jax.jit(jax.grad(loss))(params)
    along = jax.tree.map(lambda p: np.cos(np.arange(p.size)).reshape(p.shape), params)
    moved = lambda h: jax.tree.map(lambda p, v: p + h * v, params, along)
    numeric = (loss(moved(1e-5)) - loss(moved(-1e-5))) / 2e-5
    products = jax.tree.map(np.vdot, jax.device_get(slope), along)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), numeric, rtol=1e-6)


def test_wrong_arguments_are_said():
    with pytest.raises(ValueError, match="class_penalty: expected one of none, group"):
        jm.optimal_transport(None, class_penalty="lasso")
    with pytest.raises(ValueError, match="regularization: expected a number > 0"):
        jm.optimal_transport(None, regularization=0)
    with pytest.raises(ValueError, match="head: expected"):
        jm.optimal_transport(None, head=3)
