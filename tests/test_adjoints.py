"""Every adjoint through every gradient learner and inner rule: one table."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import double, largest_difference, make, one_task, row

import jaxmeta as jm
from jaxmeta import inner, learners

pytestmark = pytest.mark.usefixtures("x64")

STEPS = 5
SPECIAL = {"cavia": {"inner_lr": 0.3}}  # where defaults are not for this task
RULES = {
    "sgd": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "adam": partial(optax.adam, eps_root=1e-2),  # smooth enough for finite differences
}
# a rule is the descent's, not the learner's: one tries them all
ROWS = [("maml", rule) for rule in RULES] + [("tnet", "sgd"), ("tnet", "adam")]
EXACT = {
    "reverse by step": jm.Reverse("step"),
    "reverse by sqrt": jm.Reverse("sqrt", unroll=2),
    "reverse by 3": jm.Reverse(3, policy=jax.checkpoint_policies.dots_saveable),
    "mixed": jm.MixedMode(),
    "mixed, gradients saved": jm.MixedMode(save_gradients=True),
    "truncated at all": jm.Truncated(STEPS),
    "forward": jm.Forward(),
}
# How derivatives are passed and stored is the descent's, not the learner's: two try all of
# it, a game of two players both directions. That a learner's own adjoint gives the slope of
# its loss is in the contract, but where that is another one or its gradient is no slope.
OTHERS = {"dann": ("mixed", "forward")} | {
    name: ("mixed",)
    for name, entry in learners.REGISTRY.items()
    if "adjoint" in entry.defaults and not entry.acts
    if not entry.exact or entry.defaults["adjoint"] != jm.MixedMode()
}


def _rule(name):
    return "sgd" if "rule" in learners.REGISTRY[name].defaults else "its own"


def build(name, rule, adjoint, blobs, steps=STEPS):
    """(init, loss of its parameters) on one task, in float64, with a smooth network."""
    problem = learners.REGISTRY[name].learns[-1]
    hyper = {"inner_steps": steps} | SPECIAL.get(name, {}) | {"adjoint": adjoint}
    if rule in RULES:
        hyper["rule"] = RULES[rule]
    learner, sampler = make(name, problem, blobs, jnp.tanh, **hyper)
    task = double(one_task(sampler, jax.random.key(0)))
    return learner.init, lambda p: learner.loss(p, task, jax.random.key(2))[0]


def start(init):
    """Parameters away from the symmetric points where learners begin (zeros, identities)."""
    away = lambda p: p + 0.05 * np.sin(np.arange(p.size)).reshape(p.shape)
    return jax.tree.map(away, double(init(jax.random.key(1))))


@pytest.fixture(scope="module")
def reference(blobs):
    """Plain reverse-over-reverse gradient of a row, computed once."""
    known = {}

    def get(name, rule):
        if (name, rule) not in known:
            init, loss = build(name, rule, jm.Reverse("none"), blobs)
            params = start(init)
            known[name, rule] = params, loss, jax.jit(jax.grad(loss))(params)
        return known[name, rule]

    return get


def slope(loss, params, along, h=3e-5):
    """Derivative along a direction by sixth-order central differences."""
    at = jax.jit(jax.vmap(lambda s: loss(optax.tree.add_scale(params, s, along))))
    values = np.asarray(at(np.array([-3, -2, -1, 1, 2, 3]) * h))
    return np.dot(values, [-1, 9, -45, 45, -9, 1]) / (60 * h)


# that the other learners' gradients are slopes is in the contract
@pytest.mark.parametrize(("name", "rule"), ROWS)
def test_reference_is_the_slope_of_the_loss(reference, name, rule):
    params, loss, gradient = reference(name, rule)
    along = jax.tree.map(lambda p: np.cos(np.arange(p.size)).reshape(p.shape), params)
    gradient = jax.device_get(gradient)
    exact = sum(jax.tree.leaves(jax.tree.map(np.vdot, gradient, along)))
    norm = lambda tree: np.sqrt(sum(np.sum(a**2) for a in jax.tree.leaves(tree)))
    scale = norm(gradient) * norm(along)
    assert np.isfinite(scale) and scale > 0
    assert abs(slope(loss, params, along) - exact) < 1e-8 * scale


TABLE = [
    row(name, rule, adjoint, core=name == "maml" and rule == "sgd")
    for name, rule in ROWS
    for adjoint in (EXACT if rule == "sgd" else ("mixed",))
] + [
    row(name, _rule(name), adjoint, core=name == "dann")
    for name, adjoints in OTHERS.items()
    for adjoint in adjoints
]


@pytest.mark.parametrize(("name", "rule", "adjoint"), TABLE)
def test_exact_adjoints_are_reverse_over_reverse(reference, blobs, name, rule, adjoint):
    params, _, gradient = reference(name, rule)
    _, loss = build(name, rule, EXACT[adjoint], blobs)
    assert largest_difference(jax.jit(jax.grad(loss))(params), gradient) < 1e-8


class ByHand:
    """The definitions of the biased adjoints: a Python loop over steps."""

    gives = jm.MixedMode.gives

    def __init__(self, constant_gradients=False, last=STEPS):
        self.constant_gradients, self.last = constant_gradients, last

    def solve(self, descent, operands):
        stop = jax.lax.stop_gradient
        w, state = descent.begin(operands)
        for k in range(descent.steps):
            exact = descent.steps - k <= self.last
            now = operands if exact else stop(operands)
            rule, batch = descent.rule(now.hyper), now.batch
            if operands.xs is not None:
                batch = batch, jax.tree.map(lambda a, k=k: a[k], now.xs)
            at = w if exact else stop(w)
            g = jax.grad(descent.objective)(at, now.context, batch)
            g = stop(g) if self.constant_gradients else g
            updates, state = rule.update(g, state if exact else stop(state), at)
            updates = updates if exact else stop(updates)
            w = jax.tree.map(jnp.add, w, updates)
        return w


@pytest.mark.parametrize("name", ["maml", "anil", "cavia", "protomaml", "mtl"])
def test_first_order_takes_inner_gradients_as_constants(blobs, name):
    init, loss = build(name, "momentum", jm.FirstOrder(), blobs, 2)
    params = start(init)
    _, by_hand = build(name, "momentum", ByHand(constant_gradients=True), blobs, 2)
    gradient, expected = (jax.jit(jax.grad(f))(params) for f in (loss, by_hand))
    assert largest_difference(gradient, expected) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rule", "k"),
    [("maml", "adam", 1), ("tnet", "adam", 3), ("meta_sgd", "its own", 3)],
)
def test_truncated_is_exact_through_the_last_steps(reference, blobs, name, rule, k):
    params, _, exact = reference(name, rule)
    _, loss = build(name, rule, jm.Truncated(k), blobs)
    _, by_hand = build(name, rule, ByHand(last=k), blobs)
    gradient, expected = (jax.jit(jax.grad(f))(params) for f in (loss, by_hand))
    assert largest_difference(gradient, expected) < 1e-10
    assert largest_difference(gradient, exact) > 1e-4  # it is biased


def test_truncated_trajectory_goes_back_a_window_at_a_time():
    """w_{t+1} = w_t - h w_t: with windows of 2 the derivative of w_1, w_2, w_3 in h."""

    def path(h):
        parabola = lambda w, context, batch: 0.5 * w**2
        descend = inner.Descent(parabola, optax.sgd, 3, jm.Truncated(2))
        return descend(jnp.array(1.0), (), (), hyper=h, trajectory=True)

    both = jax.jit(lambda h: (path(h), jax.jacrev(path)(h)))
    values, derivatives = both(0.1)
    np.testing.assert_allclose(values, [0.9, 0.81, 0.729], rtol=1e-12)
    # windows end with the last step: {1}, {2, 3}; w_1 is a constant for the second
    np.testing.assert_allclose(derivatives, [-1, -0.9, -0.81 - 0.9 * 0.9], rtol=1e-12)


LAMBDA = 0.7


def ridge_problem():
    """Proximal linear regression: w* = (A + lambda I)^-1 (b + lambda theta)."""
    random = np.random.default_rng(0)
    x, y, xq, yq, theta = (
        random.normal(size=s) for s in ((6, 4), (6, 1), (5, 4), (5, 1), (4, 1))
    )
    system = 2 * x.T @ x / 6 + LAMBDA * np.eye(4)
    w = np.linalg.solve(system, 2 * x.T @ y / 6 + LAMBDA * theta)
    query = 2 * xq.T @ (xq @ w - yq) / 5
    batches = [jm.Batch(jnp.asarray(a), jnp.asarray(b)) for a, b in ((x, y), (xq, yq))]
    return jnp.asarray(theta), jm.Task(*batches), w, query, system


LINEAR = jm.Model(lambda key: jnp.zeros((4, 1)), lambda w, x: x @ w)
DAMPING = 0.3


@pytest.mark.parametrize(
    ("adjoint", "expected"),
    [
        (jm.Implicit("dense"), lambda q, a: np.linalg.solve(a, q)),
        (jm.Implicit("cg", iterations=4), lambda q, a: np.linalg.solve(a, q)),
        (
            jm.Implicit("neumann", iterations=2000, scale=0.1),
            lambda q, a: np.linalg.solve(a, q),
        ),
        (
            jm.Implicit("neumann", iterations=2, scale=0.1),
            lambda q, a: 0.1 * (q + q - 0.1 * a @ q),
        ),
        (jm.Implicit("identity"), lambda q, a: q),
        (
            jm.Implicit("cg", iterations=4, damping=DAMPING),
            lambda q, a: np.linalg.solve(a + DAMPING * np.eye(4), q),
        ),
    ],
    ids=lambda a: str(a) if isinstance(a, jm.Implicit) else "",
)
def test_implicit_is_the_closed_form_of_ridge_regression(adjoint, expected):
    theta, task, w, query, system = ridge_problem()
    learner = jm.imaml(
        LINEAR, inner_lr=0.1, inner_steps=2000, penalty=LAMBDA,
        loss=jm.losses.mse, adjoint=adjoint,
    )  # fmt: skip
    np.testing.assert_allclose(learner.adapt(theta, task.support), w, rtol=1e-10)
    gradient = jax.jit(jax.grad(lambda t: learner.loss(t, task)[0]))(theta)
    exact = LAMBDA * expected(query, system)
    np.testing.assert_allclose(gradient, exact, rtol=1e-8)


def test_implicit_agrees_with_the_unrolled_loop_at_the_solution(blobs):
    """A network this time: 400 steps, to the minimum of a strong proximal term."""
    gradients = []
    for adjoint in (jm.Reverse(), jm.Implicit("cg", iterations=60)):
        learner, sampler = make(
            "imaml", "classification", blobs, jnp.tanh,
            inner_lr=0.2, inner_steps=400, penalty=2.0, adjoint=adjoint,
        )  # fmt: skip
        task = double(one_task(sampler, jax.random.key(0)))
        params = double(learner.init(jax.random.key(1)))
        gradients.append(jax.jit(jax.grad(lambda p: learner.loss(p, task)[0]))(params))  # noqa: B023
    assert largest_difference(gradients[1], gradients[0]) < 1e-8


def test_forward_pays_for_what_is_asked():
    """The Jacobian has a column for the step size, none for the initialisation."""
    model = jm.models.mlp(hidden=(7,))
    task = jm.tasks.sinusoid().sample(jax.random.key(0))
    params = model.init(jax.random.key(1))

    def loss(rate, adjoint):
        learner = jm.maml(
            model, inner_lr=rate, inner_steps=50, loss=jm.losses.mse, adjoint=adjoint
        )
        return learner.loss(params, task)[0]

    forward, reverse = (
        jax.jit(jax.grad(partial(loss, adjoint=a)))
        for a in (jm.Forward(), jm.Reverse())
    )
    program = str(jax.make_jaxpr(forward)(0.01))
    assert f"[{sum(p.size for p in jax.tree.leaves(params))}," not in program
    np.testing.assert_allclose(forward(0.01), reverse(0.01), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "adjoint"),
    [
        ("maml", jm.Implicit()),
        ("anil", jm.Implicit()),
        ("protomaml", jm.Implicit()),
        ("meta_sgd", jm.FirstOrder()),
        ("meta_curvature", jm.FirstOrder()),
        ("alfa", jm.FirstOrder()),
        ("lstm_meta_learner", jm.Implicit()),
        ("learned_optimizer", jm.FirstOrder()),
        ("maml_plus_plus", jm.FirstOrder()),
        ("tnet", jm.FirstOrder()),
        ("leo", jm.FirstOrder()),
        ("imaml", jm.FirstOrder()),
    ],
)
def test_what_gives_no_gradient_is_refused(blobs, name, adjoint):
    problem = learners.REGISTRY[name].learns[0]
    with pytest.raises(
        ValueError, match=rf"adjoint: {name} learns .* gives no gradient"
    ):
        make(name, problem, blobs, adjoint=adjoint)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            lambda: jm.Reverse("all"),
            "remat: expected 'none', 'step', 'sqrt'.*got 'all'",
        ),
        (lambda: jm.Reverse(-1), "remat: expected .* got -1"),
        (lambda: jm.Reverse(unroll=0), "unroll: expected a whole number >= 1, got 0"),
        (lambda: jm.Truncated(0), "k: expected a whole number >= 1, got 0"),
        (lambda: jm.Implicit("lu"), "solver: expected one of cg, .* got 'lu'"),
        (lambda: jm.Implicit(iterations=0), "iterations: expected a whole number >= 1"),
        (
            lambda: jm.Implicit(damping=-1.0),
            "damping: expected a number >= 0, got -1.0",
        ),
        (lambda: jm.Implicit(scale=0.0), "scale: expected a number > 0, got 0.0"),
    ],
)
def test_wrong_arguments_get_a_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        wrong()


def test_adam_inside_gives_no_nan_where_a_gradient_is_zero():
    """A dead relu: half the inner gradient is exactly zero."""
    model = jm.models.mlp(hidden=(4,))
    params = model.init(jax.random.key(0))
    params["dense1"]["bias"] = jnp.full(4, -100.0)
    task = jm.tasks.sinusoid().sample(jax.random.key(1))
    learner = jm.maml(
        model,
        inner_lr=0.01,
        inner_steps=3,
        loss=jm.losses.mse,
        rule=partial(optax.adam, eps_root=1e-8),
    )
    gradient = jax.jit(jax.grad(lambda p: learner.loss(p, task)[0]))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
