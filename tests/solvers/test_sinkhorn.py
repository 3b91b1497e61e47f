"""Sinkhorn: numbers that our code did not produce."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_points import close, distances, transport
from scipy.special import logsumexp, softmax

from jaxmeta.solvers import sinkhorn
from jaxmeta.solvers.sinkhorn import Problem, _by_products

pytestmark = pytest.mark.usefixtures("x64")


def test_sinkhorn_is_the_linear_program():
    random = np.random.default_rng(0)
    cost = random.random((4, 5))
    rows, columns = (softmax(random.normal(size=n)) for n in (4, 5))
    solved = jax.jit(partial(sinkhorn, regularization=2e-3, iterations=3000))
    plan = solved(cost, rows, columns)
    expected = transport(cost, rows, columns)
    close(plan.sum(axis=1), rows, 1e-6)
    close(plan.sum(axis=0), columns, 1e-6)
    np.testing.assert_allclose(plan, expected, atol=1e-4)
    # a mass of zero is padding, whatever its costs
    padded = solved(
        np.pad(cost, ((0, 1), (0, 2)), constant_values=-7.0),
        np.append(rows, 0.0),
        np.append(columns, [0.0, 0.0]),
    )
    close(padded[:4, :5], plan)
    assert float(jnp.abs(padded).sum()) == pytest.approx(1.0)


RANDOM = np.random.default_rng(1)
COST = distances(RANDOM.normal(size=(7, 2)), RANDOM.normal(size=(9, 2)) + 0.5)
COST /= COST.mean()
# the last 2 rows and the last 3 columns are padding
ROWS, COLUMNS = RANDOM.random(5), RANDOM.random(6)
ROWS, COLUMNS = (
    np.pad(ROWS / ROWS.sum(), (0, 2)),
    np.pad(COLUMNS / COLUMNS.sum(), (0, 3)),
)
WEIGHTS = RANDOM.normal(size=(7, 9))


def in_logarithms(cost, regularization, iterations):
    """The iterations, in numpy; without the padding, which gets 0."""
    rows, columns, k = ROWS[:5], COLUMNS[:6], -cost[:5, :6] / regularization
    g = np.zeros(6)
    for _ in range(iterations):
        f = np.log(rows) - logsumexp(k + g[None, :], axis=1)
        g = np.log(columns) - logsumexp(k + f[:, None], axis=0)
    return np.pad(np.exp(k + f[:, None] + g[None, :]), ((0, 2), (0, 3)))


def plan(cost, regularization, iterations=40):
    how = {"regularization": regularization, "iterations": iterations}
    masses = (jnp.asarray(m, cost.dtype) for m in (ROWS, COLUMNS))
    return sinkhorn(cost, *masses, **how)


@pytest.mark.parametrize("iterations", [1, 2, 16, 17, 40])
def test_products_give_the_plan_of_logarithms(iterations):
    """Converged or not, where the kernel underflows and where it does not; costs are
    divided by the regularisation, so one program serves all of them."""
    found = jax.jit(lambda cost: plan(cost, 1.0, iterations))
    for regularization in (1.0, 0.1, 0.01, 0.001):
        expected = in_logarithms(COST, regularization, iterations)
        cost = COST / regularization
        close(found(jnp.asarray(cost)), expected, 1e-10)
        single = found(jnp.asarray(cost, jnp.float32))
        rounding = 1e-6 + np.finfo(np.float32).eps * COST.max() / regularization
        np.testing.assert_allclose(single, expected, rtol=rounding, atol=1e-6)


ALONG = np.cos(np.arange(COST.size)).reshape(COST.shape)
H = 1e-7, -1e-7  # a step to either side


def test_products_have_the_slope_of_logarithms():
    value = lambda plan: (WEIGHTS * plan).sum()
    of = jax.jit(jax.grad(lambda cost: value(plan(cost, 0.1))))
    for regularization in (1.0, 0.1, 0.003):
        ends = [in_logarithms(COST + h * ALONG, regularization, 40) for h in H]
        slope = (value(ends[0]) - value(ends[1])) / (H[0] - H[1])
        scale = 0.1 / regularization  # one program for all
        gradient = scale * np.asarray(of(jnp.asarray(scale * COST)))
        assert slope != 0 and not gradient[5:].any() and not gradient[:, 6:].any()
        np.testing.assert_allclose((gradient * ALONG).sum(), slope, rtol=1e-5)


def test_second_derivatives_are_there_with_padding():
    """Forward and reverse over reverse, as adjoints take them, beside differences."""
    slope = jax.grad(lambda cost: jnp.sum(WEIGHTS * plan(cost, 0.2)))

    @jax.jit
    def found(cost):
        value, forward = jax.jvp(slope, (cost,), (jnp.asarray(ALONG),))
        return value, (forward, jax.grad(lambda c: jnp.sum(slope(c) * ALONG))(cost))

    cost, h = jnp.asarray(COST), 1e-5
    ends = [np.asarray(found(cost + s * ALONG)[0]) for s in (h, -h)]
    wanted = (ends[0] - ends[1]) / (2 * h)
    for change in found(cost)[1]:
        np.testing.assert_allclose(change, wanted, rtol=1e-5, atol=1e-8)
    hidden = np.where(ROWS[:, None] * COLUMNS[None] > 0, COST, np.nan)
    for scale in (1, 200):  # a regularisation of 0.2, and of 0.001
        for change in found(jnp.asarray(scale * hidden))[1]:
            assert np.isfinite(change).all()


def test_one_task_that_needs_logarithms_changes_no_other():
    costs = jnp.asarray(np.stack([COST, 1000 * COST]))
    value = lambda cost: jnp.sum(WEIGHTS * plan(cost, 0.5))
    both = jax.jit(jax.vmap(jax.value_and_grad(value)))(costs)
    one = jax.jit(jax.value_and_grad(value))
    for i, cost in enumerate(costs):
        expected = one(cost)
        close(both[0][i], expected[0], 1e-9)
        close(both[1][i], expected[1], 1e-9)


def test_products_say_whether_they_are_right_and_have_a_finite_slope():
    start = (jnp.zeros(7), jnp.zeros(9))

    def found(cost):
        masses = jnp.asarray(ROWS), jnp.asarray(COLUMNS)
        there = masses[0][:, None] * masses[1][None] > 0
        problem = Problem(-cost, *masses, there)
        potentials, safe = _by_products(problem, start, 10)
        return jnp.sum(potentials[0]) + jnp.sum(potentials[1]), safe

    slope_of = jax.jit(jax.value_and_grad(found, has_aux=True))
    for scale, expected in ((1.0, True), (1e4, False)):
        (value, safe), slope = slope_of(jnp.asarray(scale * (COST + 0.1)))
        assert bool(safe) is expected
        assert np.isfinite(value) and np.isfinite(slope).all()
