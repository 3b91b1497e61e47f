"""Whatever is an `Outer` runs in `fit`, and goes on bit for bit from a saved state."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from problems import one_task

import jaxmeta as jm

KEY = jax.random.key(0)
WAVES = jm.tasks.sinusoid(shots=5, queries=5)
LEARNER = jm.maml(jm.models.mlp(hidden=(4,)), inner_lr=0.01, loss=jm.losses.mse)
ADAM = optax.adam(1e-3)


def es():
    gradient = jm.es_gradient(LEARNER, sigma=0.1, pairs=2)
    return jm.make_outer(LEARNER, ADAM, tasks_per_step=2, gradient=gradient)


def pes():
    """Gradient descent on a parabola, whose rate is learned."""

    def step(rate, w, key):
        w = w - rate * (2 * w + 0.01 * jax.random.normal(key))
        return w, w**2

    estimator = jm.pes(jm.Unroll(lambda key: jnp.ones(()), step, length=7), pairs=2)
    return jm.pes_outer(estimator, lambda key: jnp.array(0.05), optax.adam(0.01))


class Walk(NamedTuple):
    params: Any
    momentum: Any
    step: jax.Array


@cache  # so that tests share its program
def own():
    """A user's: signs of gradients with momentum, of tasks drawn by itself."""

    def init(key):
        params = LEARNER.init(key)
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Walk(params, zeros, jnp.zeros((), jnp.int32))

    def step(state, sampler, key):
        task = sampler.sample(key)
        (value, _), g = jax.value_and_grad(LEARNER.loss, has_aux=True)(
            state.params, task
        )
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, state.momentum, g)
        move = lambda p, m: p - 1e-3 * jnp.sign(m)
        params = jax.tree.map(move, state.params, momentum)
        return Walk(params, momentum, state.step + 1), {"loss": value}

    return jm.Outer(init, step, LEARNER)


@cache
def averaged():
    return jm.ema(jm.make_outer(LEARNER, ADAM, tasks_per_step=2), decay=0.5)


@cache
def mean():
    return jm.swa(jm.make_outer(LEARNER, ADAM, tasks_per_step=2), start=4, every=3)


def teacher():
    return jm.mean_teacher(LEARNER, ADAM, decay=0.5, tasks_per_step=2)


@cache
def population():
    make = lambda rate: (LEARNER, optax.sgd(rate))
    return jm.population(make, 2, tasks_per_step=2, rate=[1e-3, 1e-2])


OUTERS = {f.__name__: f for f in (es, pes, own, averaged, mean, teacher, population)}


@pytest.mark.parametrize("name", OUTERS)
def test_an_outer_trains_in_fit_and_resumes_bit_for_bit(name, tmp_path):
    outer = OUTERS[name]()
    sampler = None if name == "pes" else WAVES
    key = jax.random.split(KEY, 2) if name == "population" else KEY
    saved = []
    keep = lambda state: saved.append(jax.device_put(state, may_alias=False))
    options: dict = {"key": key, "chunk": 5, "save": keep, "save_every": 10}
    whole = jm.fit(outer, sampler, steps=25, **options)
    assert [int(s.step) for s in saved] == [10, 20, 25] and int(whole.step) == 25
    checkpoints = jm.Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(saved[0])
    found = checkpoints.latest(jax.eval_shape(lambda: whole))
    checkpoints.close()
    # not said to be of a device, where a program would be compiled anew
    found = jax.device_get(found)
    again = jm.fit(outer, sampler, steps=25, state=found, **options)
    assert jax.tree.structure(again) == jax.tree.structure(whole)
    for a, b in zip(*map(jax.tree.leaves, (again, whole)), strict=True):
        np.testing.assert_array_equal(a, b)
    start, end = (jax.tree.leaves(s.params) for s in (found, whole))
    assert not all(map(np.array_equal, start, end))


def test_the_mean_is_that_of_the_parameters_after_some_steps():
    """After steps 4, 7 and 10; before, what is tested is what is trained."""
    ends = [jm.fit(mean(), WAVES, steps=n, key=KEY, chunk=5) for n in (2, 4, 7, 10, 11)]
    bias = [state.state.params["head"]["bias"] for state in ends]
    np.testing.assert_array_equal(ends[0].params["head"]["bias"], bias[0])
    np.testing.assert_array_equal(ends[1].params["head"]["bias"], bias[1])
    wanted = np.mean([np.asarray(b, np.float64) for b in bias[1:4]], axis=0)
    for state in ends[3:]:
        np.testing.assert_allclose(state.params["head"]["bias"], wanted, rtol=2e-6)
        assert int(state.number) == 3


def test_a_teacher_is_a_term_of_the_objective(blobs):
    """Beside scipy, for classes; and a teacher of weight 0 is none."""
    learner = jm.protonet(jm.models.mlp(6, 4, (8,)), ways=3)
    given, known = (learner.init(jax.random.key(i)) for i in (0, 1))
    task = one_task(jm.tasks.episodes(blobs, 3, 2, 4), jax.random.key(5))
    student = jm.taught(learner, learner, known, weight=0.3, temperature=2.0)
    at = given, task, None, jnp.zeros((), jnp.int32)
    value, metrics = jax.jit(student.objective)(*at)
    predict = lambda p: learner.predict(learner.adapt(p, task.support), task.query.x)
    logits = jax.jit(lambda: [predict(p) for p in (known, given)])()
    chances = [scipy.special.softmax(np.asarray(a) / 2.0, axis=1) for a in logits]
    apart = 4 * np.mean(scipy.stats.entropy(*chances, axis=1))
    assert float(metrics["taught"]) == pytest.approx(apart, rel=1e-4)
    own = float(jax.jit(learner.loss)(given, task)[0])
    assert float(value) == pytest.approx(0.7 * own + 0.3 * apart, rel=1e-5)
    assert student.loss is learner.loss  # what a test reports

    taught_by = lambda p: jm.taught(learner, learner, p).objective(*at)[0]
    slope = jax.jit(jax.grad(taught_by))(known)
    assert all(not a.any() for a in jax.tree.leaves(slope))


def test_a_teacher_without_weight_changes_nothing():
    free = jm.mean_teacher(LEARNER, ADAM, decay=0.5, weight=0.0, tasks_per_step=2)
    options: dict = {"steps": 6, "key": KEY, "chunk": 5}
    states = [jm.fit(outer, WAVES, **options) for outer in (free, averaged())]
    for a, b in zip(*(jax.tree.leaves(s) for s in states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_learner_and_its_outer_are_the_same_run():
    options: dict = {"steps": 6, "key": KEY, "chunk": 5}
    plain = jm.fit(LEARNER, WAVES, ADAM, tasks_per_step=2, **options)
    outer = jm.fit(jm.make_outer(LEARNER, ADAM, tasks_per_step=2), WAVES, **options)
    for a, b in zip(*map(jax.tree.leaves, (plain, outer)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_average_is_that_of_the_parameters_after_each_step():
    outer = averaged()
    states = [jm.fit(outer, WAVES, steps=n, key=KEY, chunk=5) for n in (1, 2, 3)]
    first = LEARNER.init(jax.random.fold_in(KEY, 1))["head"]["bias"]
    mean = np.asarray(first)
    for state in states:
        mean = 0.5 * mean + 0.5 * np.asarray(state.state.params["head"]["bias"])
    np.testing.assert_allclose(states[-1].params["head"]["bias"], mean, rtol=1e-6)


def test_a_member_of_a_population_is_the_run_of_its_own():
    keys = lambda: jax.random.split(jax.random.key(7), 2)  # each fit consumes its own
    state = jm.fit(population(), WAVES, steps=5, key=keys(), chunk=5)
    options: dict = {"tasks_per_step": 2, "steps": 5, "key": keys()[1], "chunk": 5}
    alone = jm.fit(LEARNER, WAVES, optax.sgd(1e-2), **options)
    both = jax.device_get((state.params, alone.params))
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-7)


def test_a_member_of_a_population_of_agents_is_the_run_of_its_own():
    env = jm.envs.bandit(arms=2, pulls=2)
    agent = jm.rl2(env, hidden=4)
    outer = jm.policy_gradient(
        agent, env, optax.adam(1e-2), tasks_per_step=4, minibatches=2
    )
    keys = lambda: jax.random.split(jax.random.key(7), 2)  # each fit consumes its own
    options: dict = {"steps": 5, "chunk": 5}
    whole = jm.fit(jm.population(lambda: outer, 2), None, key=keys(), **options)
    alone = jm.fit(outer, None, key=keys()[1], **options)
    both = jax.device_get((whole.params, alone.params))
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-6)


def test_an_outer_of_the_users_own_is_validated():
    reports = []

    class Keep:
        def chunk(self, step, history, seconds):
            """Only validations are kept."""

        def validation(self, step, report):
            reports.append(report)

    jm.fit(own(), WAVES, steps=4, key=KEY, chunk=5, log=Keep(), validation=WAVES)
    assert reports[0].num_tasks == 100


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: jm.fit(own(), WAVES, ADAM, steps=1, key=KEY), "optimizer: a jm.Outer"),
        (
            lambda: jm.fit(own(), WAVES, steps=1, key=KEY, tasks_per_step=2),
            "tasks_per_step: a jm.Outer has its own",
        ),
        (lambda: jm.fit(LEARNER, WAVES, steps=1, key=KEY), "optimizer: expected"),
        (lambda: jm.fit(own(), None, steps=1, key=KEY), "sampler: expected"),
        (
            lambda: jm.fit(pes(), None, steps=1, key=KEY, validation=WAVES),
            "validation: this jm.Outer has no learner",
        ),
        (lambda: jm.fit(population(), WAVES, steps=1, key=KEY), r"keys: .*\[2\]"),
        (lambda: jm.fit(own(), WAVES, steps=1, key=KEY, state=3), "state: expected"),
        (lambda: jm.ema(own(), decay=1.0), r"decay: .*got 1.0"),
        (lambda: jm.ema(LEARNER), "outer: expected a jm.Outer"),
    ],
)
def test_wrong_use_is_said(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        wrong()
