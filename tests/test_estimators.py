"""ES and PES against exact gradients of quadratics, in units of their standard error."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta as jm

CENTRE = jnp.array([1.0, -2.0, 0.5])


def quadratic():
    """A learner whose loss on a task with target c is |theta - c|^2 / 2."""

    def loss(params, task, key=None):
        del key
        value = 0.5 * jnp.sum(jnp.square(params - task.support.x[0]))
        return value, {"loss": value}

    return jm.MetaLearner(lambda key: jnp.zeros(3), None, None, loss)


def z_scores(samples, exact):
    error = samples.std(axis=0, ddof=1) / len(samples) ** 0.5
    return (samples.mean(axis=0) - exact) / error


def test_es_is_the_gradient_within_its_standard_error():
    tasks = jax.tree.map(
        lambda a: a[None], jm.Task(*(jm.Batch(CENTRE[None], jnp.zeros((1, 1))),) * 2)
    )
    gradient = jm.es_gradient(quadratic(), sigma=0.3, pairs=8)
    theta = jnp.array([0.3, 0.2, -0.1])
    one = lambda key: gradient(theta, tasks, key)
    keys = jax.random.split(jax.random.key(0), 2000)
    (value, metrics), samples = jax.jit(jax.vmap(one))(keys)
    exact = np.asarray(theta - CENTRE)
    assert np.abs(z_scores(np.asarray(samples, float), exact)).max() < 4
    assert np.abs(z_scores(np.asarray(samples, float), 1.05 * exact)).max() > 4
    smoothed = 0.5 * float(jnp.sum(exact**2)) + 0.5 * 3 * 0.3**2
    np.testing.assert_allclose(value.mean(), smoothed, rtol=0.01)
    assert metrics.keys() == {"loss", "diverged"}


def test_es_follows_a_scheduled_loss():
    scheduled = lambda params, task, key, step: (jnp.sum(params) * step, {})
    learner = quadratic()._replace(objective=scheduled)
    tasks = jax.tree.map(
        lambda a: a[None], jm.Task(*(jm.Batch(CENTRE[None], jnp.zeros((1, 1))),) * 2)
    )
    gradient = jm.es_gradient(learner, sigma=0.1, pairs=4)
    value = lambda step: gradient(jnp.ones(3), tasks, jax.random.key(0), step)[1]
    np.testing.assert_allclose(
        value(jnp.array(4.0)), 2 * value(jnp.array(2.0)), rtol=1e-4
    )
    with pytest.raises(ValueError, match="tasks_at_once: an estimator given"):
        jm.make_step(learner, optax.sgd(1.0), tasks_at_once=2, gradient=gradient)


def test_pes_keeps_the_types_of_parameters_and_state():
    theta = jnp.array([0.3, -0.2], jnp.bfloat16)
    problem = process()._replace(init=lambda key: jnp.zeros(2, jnp.bfloat16))
    estimator = jm.pes(problem, pairs=2)
    state = estimator.init(theta, jax.random.key(0))
    _, g, after = estimator.gradient(theta, state, jax.random.key(1))
    assert g.dtype == jnp.bfloat16
    assert jax.eval_shape(lambda: after) == jax.eval_shape(lambda: state)


def test_es_trains_through_fit():
    learner = jm.maml(jm.models.mlp(hidden=(8,)), inner_lr=0.01, loss=jm.losses.mse)
    sampler = jm.tasks.sinusoid()
    optimizer = optax.adam(1e-2)
    gradient = jm.es_gradient(learner, sigma=0.05, pairs=16)
    key = jax.random.key(0)
    before = jm.init_state(learner, optimizer, key).params
    after = jm.fit(
        learner, sampler, optimizer, steps=200, key=key, gradient=gradient
    ).params
    losses = [
        jm.evaluate(learner, p, sampler, num_tasks=300, key=key).mean["loss"]
        for p in (before, after)
    ]
    assert losses[1] < 0.9 * losses[0]


LENGTH, PIECE = 4, 3


def process():
    """s <- 0.9 s + theta from a random start; a piece's loss is its sum of s^2."""

    def step(theta, s, key):
        del key

        def one(s, _):
            s = 0.9 * s + theta
            return s, jnp.sum(s**2)

        s, losses = jax.lax.scan(one, s, length=PIECE)
        return s, jnp.sum(losses)

    init = lambda key: 0.0 * jax.random.normal(key, (2,))
    return jm.Unroll(init, step, LENGTH)


def whole(theta):
    problem, total, s = process(), 0.0, jnp.zeros(2)
    for _ in range(LENGTH):
        s, loss = problem.step(theta, s, None)
        total += loss
    return total


def test_pes_is_unbiased_where_truncation_is_not():
    theta = jnp.array([0.3, -0.2])
    estimator = jm.pes(process(), sigma=0.1, pairs=4)

    def one_process(key):
        """Sums over a process of losses and gradients, with and without memory."""
        key_init, *keys = jax.random.split(key, 2 * LENGTH + 1)
        state, totals = estimator.init(theta, key_init), (0.0, 0.0, 0.0)
        for piece in range(LENGTH):
            blank = state._replace(noise=jax.tree.map(jnp.zeros_like, state.noise))
            forgetful = estimator.gradient(theta, blank, keys[2 * piece])[1]
            (loss, _), g, state = estimator.gradient(theta, state, keys[2 * piece + 1])
            totals = jax.tree.map(jnp.add, totals, (loss, g, forgetful))
        return state, *totals

    keys = jax.random.split(jax.random.key(0), 4000)
    state, losses, samples, forgetful = jax.jit(jax.vmap(one_process))(keys)
    exact = np.asarray(jax.grad(whole)(theta))
    assert np.abs(z_scores(np.asarray(samples, float), exact)).max() < 4
    assert np.abs(z_scores(np.asarray(forgetful, float), exact)).max() > 10
    assert losses.mean() > whole(theta)  # of a smoothed bowl
    # the process is over: everything is at its beginning again
    assert not state.noise.any() and not state.piece.any() and not state.inner.any()


def test_pes_trains_an_optimiser_over_a_long_unroll():
    """The step size of 60 steps of gradient descent, 10 at a time."""

    def step(log_rate, w, key):
        del key

        def one(w, _):
            w = w - jnp.exp(log_rate) * jnp.array([1.0, 0.1]) * w
            return w, jnp.sum(w**2)

        w, losses = jax.lax.scan(one, w, length=10)
        return w, jnp.mean(losses)

    problem = jm.Unroll(lambda key: jax.random.normal(key, (2,)), step, 6)
    estimator, optimizer = jm.pes(problem, sigma=0.1, pairs=16), optax.adam(0.05)
    log_rate = jnp.log(0.01)

    def update(carry, key):
        log_rate, opt_state, state = carry
        (loss, _), g, state = estimator.gradient(log_rate, state, key)
        updates, opt_state = optimizer.update(g, opt_state)
        return (optax.apply_updates(log_rate, updates), opt_state, state), loss

    key_init, key_run = jax.random.split(jax.random.key(0))
    carry = log_rate, optimizer.init(log_rate), estimator.init(log_rate, key_init)
    _, losses = jax.jit(lambda c, k: jax.lax.scan(update, c, k))(
        carry, jax.random.split(key_run, 300)
    )
    assert losses[-60:].mean() < 0.3 * losses[:60].mean()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            lambda: jm.es_gradient(quadratic(), sigma=0),
            "sigma: expected a number > 0, got 0",
        ),
        (
            lambda: jm.es_gradient(quadratic(), pairs=0),
            "pairs: expected a whole number >= 1",
        ),
        (lambda: jm.pes(process()._replace(length=0)), "length: expected a whole"),
        (
            lambda: jm.pes(process(), sigma=-1.0),
            "sigma: expected a number > 0, got -1.0",
        ),
    ],
)
def test_wrong_arguments_get_a_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        wrong()
