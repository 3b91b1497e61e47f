"""The inner loop and its adjoints."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import largest_difference

import jaxmeta as jm
from jaxmeta import inner
from jaxmeta.types import Batch

pytestmark = pytest.mark.usefixtures("x64")

EXACT = [
    jm.Reverse(),
    jm.Reverse(remat="none"),
    jm.Reverse(unroll=3),
    jm.MixedMode(),
]


def objective(w, context, batch):
    """Not symmetric in anything; w, context and inputs all matter to second order."""
    hidden = jnp.tanh(batch.x @ (w["a"] * context))
    return jnp.mean(jnp.square(hidden @ w["b"] - batch.y))


@pytest.fixture(scope="module")
def problem():
    random = np.random.default_rng(0)
    w = {"a": random.normal(size=(3, 4)), "b": random.normal(size=(4, 1))}
    batch = Batch(random.normal(size=(5, 3)), random.normal(size=(5, 1)))
    return w, random.normal(size=(3, 4)), batch


SLOPE = jax.jit(jax.grad(objective))


def dot(a, b):
    """The sum of all products, in numpy."""
    return sum(jax.tree.leaves(jax.tree.map(np.vdot, a, b)))


def meta_loss(inputs, adjoint, rule, steps):
    w, context, batch = inputs
    end = inner.Descent(objective, lambda _: rule, steps, adjoint)(w, context, batch)
    return objective(end, context, batch._replace(x=jnp.cos(batch.x)))


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize(
    "rule",
    [optax.sgd(0.1), optax.sgd(0.1, momentum=0.9), optax.adam(0.1, eps_root=1e-8)],
)
def test_exact_adjoints_agree_in_everything_that_is_learned(problem, rule, steps):
    """Initialisation, context (a fixed body) and the support data themselves."""
    inputs = problem  # in double precision
    gradients = [
        jax.jit(jax.grad(partial(meta_loss, adjoint=a, rule=rule, steps=steps)))(inputs)
        for a in EXACT
    ]
    gradients = jax.device_get(gradients)
    for other in gradients[1:]:
        assert largest_difference(other, gradients[0]) < 1e-10
    numeric = np.zeros(3)
    loss = jax.jit(partial(meta_loss, adjoint=EXACT[0], rule=rule, steps=steps))
    for i in range(3):  # a direction in each of the three by finite differences
        nudge = [jax.tree.map(np.zeros_like, part) for part in inputs]
        nudge[i] = jax.tree.map(np.sin, inputs[i])
        up, down = (
            jax.tree.map(lambda p, d, s=s: p + s * d, inputs, tuple(nudge))
            for s in (1e-5, -1e-5)
        )
        numeric[i] = (loss(up) - loss(down)) / 2e-5
        exact = dot(gradients[0], tuple(nudge))
        np.testing.assert_allclose(exact, numeric[i], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("adjoint", [*EXACT, jm.FirstOrder()], ids=str)
def test_adjoints_adapt_alike_and_pass_vmap(problem, adjoint):
    w, context, batch = problem
    descend = inner.Descent(objective, optax.sgd, 3, adjoint)
    run = lambda batch: descend(w, context, batch, hyper=0.1)
    by_hand = w
    for _ in range(3):
        g = jax.device_get(SLOPE(by_hand, context, batch))
        by_hand = jax.tree.map(lambda p, d: p - 0.1 * d, by_hand, g)
    assert largest_difference(run(batch), by_hand) < 1e-12
    both = jax.jit(jax.vmap(run))(jax.tree.map(lambda a: np.stack([a, 2 * a]), batch))
    assert largest_difference(jax.tree.map(lambda a: a[0], both), by_hand) < 1e-12


def test_reverse_passes_forward_mode(problem):
    loss = partial(meta_loss, adjoint=jm.Reverse(), rule=optax.sgd(0.1), steps=3)
    along = jax.tree.map(np.cos, problem)
    _, tangent = jax.jit(partial(jax.jvp, loss))((problem,), (along,))
    gradient = jax.device_get(jax.jit(jax.grad(loss))(problem))
    np.testing.assert_allclose(tangent, dot(gradient, along))


def test_no_step_changes_nothing(problem):
    w, context, batch = problem
    descend = inner.Descent(objective, optax.sgd, 0, jm.MixedMode(), hyper=1)
    assert descend(w, context, batch) is w


@pytest.mark.parametrize("steps", [1, 2])
def test_data_of_single_steps_must_be_as_many(problem, steps):
    w, context, batch = problem
    with pytest.raises(ValueError, match=f"xs: expected one entry .* {steps} steps"):
        descend = inner.Descent(objective, optax.sgd, steps, jm.MixedMode())
        descend(w, context, batch, hyper=0.1, xs=np.zeros((5, 1)))


def test_mixed_mode_needs_less_memory_than_reverse():
    """Ten steps of a deep network: temporaries as the compiler counts them."""
    model = jm.models.mlp(hidden=(64, 64, 64))
    sample = jm.tasks.sinusoid(shots=50, queries=50).sample
    task = jax.eval_shape(sample, jax.random.key(0))
    params = jax.eval_shape(model.init, jax.random.key(0))

    def temporaries(adjoint):
        learner = jm.maml(model, inner_steps=10, adjoint=adjoint, loss=jm.losses.mse)
        gradient = jax.jit(jax.grad(lambda p, t: learner.loss(p, t)[0]))
        compiled = gradient.lower(params, task).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(jm.MixedMode()) < 0.5 * temporaries(jm.Reverse(remat="none"))


def test_anil_computes_the_bodys_features_once():
    """The loop over inner steps, and its backward pass, never see the body's weights."""
    body, head = np.ones((4, 7)), np.ones((7, 1))
    model = jm.Model(
        lambda key: {"body": body, "head": head},
        lambda p, x: jnp.tanh(x @ p["body"]) @ p["head"],
    )
    learner = jm.anil(model, inner_steps=3, loss=jm.losses.mse)
    batch = jm.Batch(np.ones((5, 4)), np.ones((5, 1)))
    gradient = jax.grad(lambda p: learner.loss(p, jm.Task(batch, batch))[0])
    program = jax.make_jaxpr(gradient)(model.init(jax.random.key(0)))
    scans = [e for e in program.jaxpr.eqns if e.primitive.name == "scan"]
    assert len(scans) == 2
    for scan in scans:
        assert (4, 7) not in {v.aval.shape for v in scan.invars}


RESUMED = [jm.MixedMode(), jm.Forward(), jm.Truncated(2), jm.Implicit()]


def test_a_descent_goes_on_from_the_state_of_its_rule(problem):
    """Twice two steps of Adam are four, by every adjoint; derivatives are of the second."""
    w, context, batch = problem

    def ends(adjoint):
        rule = lambda rate: optax.adam(rate, eps_root=1e-8)
        one, two = (inner.Descent(objective, rule, n, adjoint, 0.1) for n in (2, 4))

        def last(context):
            now, state = one(*first, batch, state=rule(0.1).init(w))
            now, state = jax.lax.stop_gradient((now, state))
            now, state = one(now, context, batch, state=state)
            return jnp.sum(now["a"] ** 2), (now, state)

        first = w, context
        gradient, (now, state) = jax.grad(last, has_aux=True)(context)
        return now, two(w, context, batch), state[0].count, gradient

    found = jax.jit(lambda: [ends(adjoint) for adjoint in RESUMED])()
    for now, whole, count, gradient in found:
        assert count == 4 and largest_difference(now, whole) < 1e-12
        assert jnp.any(gradient != 0)
    for _, _, _, gradient in found[:-1]:  # all but the solution's
        np.testing.assert_allclose(gradient, found[0][3], rtol=1e-9)
