"""Weights of losses that are learned: closed forms, and runs that go on bit for bit."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta as jm

KEY = jax.random.key(0)
SIZES = jnp.array([0.1, 1.0, 30.0])


class Kinds(NamedTuple):
    """Tasks whose input is the number of their kind."""

    kinds: int = 3

    def sample(self, key):
        kind = jax.random.randint(key, (), 0, self.kinds)
        batch = jm.Batch({"kind": kind[None]}, jnp.zeros((1, 1)))
        return jm.Task(batch, batch)


def which(task):
    return task.query.x["kind"][0]


def slopes():
    """A loss of another size for each kind; its gradient does not change: size k."""

    def loss(params, task, key=None):
        value = SIZES[which(task)] * (1 + params)
        return value, {"loss": value}

    return jm.MetaLearner(lambda key: jnp.zeros(()), None, None, loss)  # ty: ignore


SAMPLER = Kinds()


def of_kind(k):
    batch = jm.Batch({"kind": jnp.full(1, k)}, jnp.zeros((1, 1)))
    return jm.Task(batch, batch)


LEARNER = slopes()


def uncertain():
    learner = jm.uncertainty_weighting(LEARNER, 3, which)
    move = optax.multi_transform(
        {"still": optax.set_to_zero(), "moves": optax.sgd(0.3)},
        lambda params: type(params)("still", "moves"),
    )
    return jm.make_outer(learner, move, tasks_per_step=8)


def gradnorm(alpha=0.0):
    falling = optax.adam(optax.exponential_decay(0.1, 100, 0.2))
    return jm.gradnorm(
        LEARNER,
        optax.set_to_zero(),
        3,
        which,
        alpha=alpha,
        weights_optimizer=falling,
        tasks_per_step=8,
    )


@pytest.mark.parametrize("make", [uncertain, gradnorm])
def test_where_it_ends_and_that_it_goes_on_bit_for_bit(make):
    outer, fit = make(), partial(jm.fit, chunk=200, key=KEY)
    whole = fit(outer, SAMPLER, steps=400)
    again = fit(outer, SAMPLER, steps=400, state=fit(outer, SAMPLER, steps=150))
    for a, b in zip(*map(jax.tree.leaves, (whole, again)), strict=True):
        np.testing.assert_array_equal(a, b)
    if make is uncertain:  # least where s = log L
        np.testing.assert_allclose(whole.params.s, jnp.log(SIZES), atol=1e-3)
    else:  # equal norms: the weights are as 1 / size
        np.testing.assert_allclose(
            whole.balance.w, 3 / SIZES / jnp.sum(1 / SIZES), rtol=0.02
        )
        np.testing.assert_allclose(whole.balance.first, SIZES, rtol=1e-6)


def test_the_least_of_the_objective_is_at_the_logarithm_of_the_loss(x64):
    learner = jm.uncertainty_weighting(LEARNER, 3, which)
    params, step = learner.init(KEY), jnp.zeros((), int)
    params = params._replace(params=jnp.zeros(()), s=jnp.log(SIZES.astype(float)))
    for k in range(3):
        task = of_kind(k)
        value, slope = jax.value_and_grad(
            lambda p, task=task: learner.objective(p, task, None, step)[0]
        )(params)
        assert float(value) == pytest.approx(1 + np.log(float(SIZES[k])), rel=1e-6)
        np.testing.assert_allclose(slope.s, 0, atol=1e-6)
        assert float(learner.loss(params, task)[0]) == pytest.approx(float(SIZES[k]))


def test_a_slow_kind_gets_more_weight():
    """Chen et al., algorithm 1, one step by hand: alpha 1, kind 1 fell to half."""
    outer = gradnorm(alpha=1.0)
    now = outer.init(KEY)
    first = jnp.array([0.1, 2.0, 30.0])
    now = now._replace(balance=now.balance._replace(first=first))
    after, _ = jax.jit(outer.step)(now, SAMPLER, jax.random.key(3))
    tasks = jm.sample_tasks(SAMPLER, jax.random.split(jax.random.key(3))[0], 8)
    assert set(np.asarray(jax.vmap(which)(tasks)).tolist()) == {0, 1, 2}
    rates = np.array([1, 0.5, 1])
    norms = np.asarray(SIZES)
    target = norms.mean() * rates / rates.mean()
    # Adam's first step is the sign of the slope, 0.1 long
    w = 1 - 0.1 * np.sign(norms - target)
    np.testing.assert_allclose(after.balance.w, 3 * w / w.sum(), rtol=1e-5)


def test_a_kind_that_is_not_there_is_not_learnt_from():
    learner = jm.uncertainty_weighting(LEARNER, 2, which)  # and tasks of three
    params = learner.init(jax.random.key(1))
    assert np.isnan(learner.objective(params, of_kind(2), None, 0)[0])
    outer = jm.gradnorm(LEARNER, optax.sgd(0.1), 2, which, tasks_per_step=8)
    before = outer.init(jax.random.key(2))
    after, metrics = jax.jit(outer.step)(before, SAMPLER, jax.random.key(3))
    assert metrics["skipped"] == 1 and after.params == before.params
    np.testing.assert_array_equal(after.balance.w, before.balance.w)
    one_too_many = lambda task: task.query.x["kind"]
    wrong = jm.uncertainty_weighting(LEARNER, 2, one_too_many)
    with pytest.raises(ValueError, match=r"which: expected the kind .*got an array"):
        wrong.objective(params, of_kind(0), None, 0)


def test_mean_of_the_last_steps_is_exact(x64):
    """Stochastic weight averaging in double precision, beside numpy's mean."""
    learner = jm.MetaLearner(
        lambda key: jax.random.normal(key, (3,)),
        *(None, None),  # ty: ignore
        lambda p, task, key=None: (jnp.sum(jnp.cos(p * which(task))), {}),
    )
    plain = jm.make_outer(learner, optax.sgd(0.1), tasks_per_step=2)
    averaged = jm.swa(plain, start=4)
    state, params = averaged.init(jax.random.key(9)), []
    step = jax.jit(averaged.step)
    for i in range(9):
        state, _ = step(state, SAMPLER, jax.random.key(i))
        params.append(np.asarray(state.state.params))
    np.testing.assert_allclose(state.params, np.mean(params[3:], 0), rtol=1e-14)
    assert int(state.number) == 6
