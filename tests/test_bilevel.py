"""Problems in two levels: closed forms, finite differences, hypertorch's numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")

key = jax.random.key
RANDOM = np.random.default_rng(0)
A = (lambda a: a @ a.T / 4 + np.eye(4))(RANDOM.normal(size=(4, 4)))
B, TARGET = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=4)
PHI = RANDOM.normal(size=3)
RATE = 0.1
NOTHING = jm.Batch(np.zeros(1))
TASK = jm.Task(NOTHING, NOTHING)


def quadratic(w, phi, batch):
    """w* = A^-1 B phi."""
    return w @ jnp.asarray(A) @ w / 2 - w @ (jnp.asarray(B) @ phi)


def distance(w, phi, batch):
    return jnp.sum((w - TARGET) ** 2) / 2 + 0.05 * jnp.sum(phi**2), {"size": w @ w}


LEVELS = {"init": lambda _: jnp.asarray(PHI), "start": lambda _: jnp.zeros(4)}
bilevel = partial(jm.bilevel, quadratic, distance, **LEVELS, inner_lr=RATE)
online = partial(jm.online_bilevel, quadratic, distance, **LEVELS, inner_lr=RATE)


def series(steps, matrix=A, scale=RATE):
    """sum_{i < steps} scale (I - scale A)^i."""
    one, total = np.eye(4), np.zeros((4, 4))
    for _ in range(steps):
        total = total + scale * one
        one = one - scale * matrix @ one
    return total


INVERSE = np.linalg.inv(A)
STEPS = 7
UNROLLED = [
    (jm.MixedMode(), STEPS),
    (jm.Reverse(), STEPS),
    (jm.Forward(), STEPS),
    (jm.Truncated(3), 3),
]
IMPLICIT = [
    (jm.Implicit("dense"), INVERSE),
    (jm.Implicit("cg", iterations=4), INVERSE),
    (jm.Implicit("gmres", iterations=4), INVERSE),
    (jm.Implicit("bicgstab", iterations=5), INVERSE),
    (jm.Implicit("normal_cg", iterations=4), INVERSE),
    (jm.Implicit("neumann", iterations=5, scale=0.2), series(5, scale=0.2)),
    (jm.Implicit("identity"), np.eye(4)),
    (jm.Implicit("cg", 4, damping=0.3), np.linalg.inv(A + 0.3 * np.eye(4))),
]
NAMED = lambda value: str(value) if not isinstance(value, (int, np.ndarray)) else ""


def expected(w, inverse):
    """d outer/dphi with dw/dphi = inverse B."""
    return (inverse @ B).T @ (w - TARGET) + 0.1 * PHI


@pytest.mark.parametrize(("adjoint", "through"), UNROLLED, ids=NAMED)
def test_gradients_through_the_steps_of_a_quadratic(adjoint, through):
    learner = bilevel(inner_steps=STEPS, adjoint=adjoint)
    value = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))
    (loss, metrics), gradient = value(jnp.asarray(PHI), TASK)
    w = series(STEPS) @ B @ PHI
    np.testing.assert_allclose(gradient, expected(w, series(through)), rtol=1e-8)
    np.testing.assert_allclose(loss, distance(w, PHI, None)[0], rtol=1e-12)
    np.testing.assert_allclose(metrics["size"], w @ w, rtol=1e-12)
    residual = np.linalg.norm(A @ w - B @ PHI)  # it has not converged, and says so
    np.testing.assert_allclose(metrics["inner_residual"], residual, rtol=1e-10)
    assert residual > 0.1


@pytest.mark.parametrize(("adjoint", "inverse"), IMPLICIT, ids=NAMED)
def test_implicit_gradients_of_a_quadratic(adjoint, inverse):
    learner = bilevel(inner_steps=1500, adjoint=adjoint)
    solution = INVERSE @ B @ PHI
    at = jnp.asarray(PHI), TASK

    @jax.jit
    def found_by():
        found = [jax.grad(learner.objective, has_aux=True)(*at, None, 0)]
        if adjoint in (
            IMPLICIT[1][0],
            IMPLICIT[2][0],
        ):  # two are enough for the other way
            found.append(jax.grad(learner.loss, has_aux=True)(*at))
        return found

    found = found_by()
    for gradient, metrics in found:  # of what is descended, and of what is tested
        np.testing.assert_allclose(gradient, expected(solution, inverse), rtol=1e-8)
        assert metrics["inner_residual"] < 1e-12
    v = solution - TARGET
    system = A + adjoint.damping * np.eye(4)
    left = np.linalg.norm(system @ inverse @ v - v) / np.linalg.norm(v)
    np.testing.assert_allclose(found[0][1]["linear_residual"], left, atol=1e-8)


def test_the_penalties_of_hypertorch():
    """A penalty for each weight of a logistic regression; numbers of its notebook."""
    np.random.seed(1)  # noqa: NPY002
    w, x = np.random.randn(20), np.random.randn(1000, 20)  # noqa: NPY002
    y = (x @ w + 0.1 * np.random.randn(1000) > 0).astype(float)  # noqa: NPY002
    order = np.random.permutation(1000)  # noqa: NPY002
    rows = [jm.Batch(x[o], y[o]) for o in (order[:500], order[500:])]
    cross_entropy = optax.sigmoid_binary_cross_entropy
    error = lambda w, batch: jnp.mean(cross_entropy(batch.x @ w, batch.y))
    learner = jm.bilevel(
        lambda w, phi, train: error(w, train) + jnp.sum(phi * w**2) / 2,
        lambda w, phi, validation: error(w, validation),
        init=lambda _: jnp.ones(20, float),
        start=lambda _: jnp.zeros(20, float),
        inner_steps=100,
        adjoint=jm.Truncated(10),
    )
    clip = optax.stateless(lambda u, p: jnp.maximum(p + u, 1e-8) - p)
    optimizer = optax.chain(optax.sgd(1.0, momentum=0.9), clip)
    step = jm.make_step(learner, optimizer)
    task = jax.tree.map(lambda a: a[None], jm.Task(rows[1], rows[0]))
    state = jm.init_state(learner, optimizer, key(1))
    advance = lambda state, _: step(state, task, key(0))
    run = jax.jit(lambda s: jax.lax.scan(advance, s, None, 991)[1]["loss"])
    optimised = {"xla_backend_optimization_level": 3}  # unlike the rest of the suite
    history = run.lower(state).compile(compiler_options=optimised)(state)
    np.testing.assert_allclose(
        history[jnp.array([0, 10, 50, 100, 500, 990])],
        [0.5743990, 0.5337679, 0.2944669, 0.2853544, 0.2807869, 0.2805065],
        atol=1e-7,
    )


def edge(w, phi, x):
    """A mixed operation: tanh, nothing, or a square of a linear map."""
    h = x @ w["in"]
    mixed = jnp.stack([jnp.tanh(h), h, h**2 / 2])
    return jnp.einsum("o,onh->nh", jax.nn.softmax(phi), mixed) @ w["out"]


def test_the_second_order_gradient_of_darts_is_that_of_finite_differences():
    """One look-ahead step, of a w that is not at its start."""
    x = RANDOM.normal(size=(12, 3))
    task = jm.Task(jm.Batch(x[:6], np.sin(x[:6, :2])), jm.Batch(x[6:], x[6:, :2]))
    w = {"in": RANDOM.normal(size=(3, 4)), "out": RANDOM.normal(size=(4, 2))}
    phi = jnp.array([0.3, -0.2, 0.1])
    error = lambda w, phi, b: jnp.mean((edge(w, phi, b.x) - b.y) ** 2)
    how = {"init": lambda _: phi, "start": lambda _: w, "inner_lr": 0.2}
    outer = jm.online_bilevel(error, error, optax.sgd(1.0), **how)
    state, _ = jax.jit(outer.step)(outer.init(key(2)), jm.tasks.single(*task), key(3))

    @jax.vmap
    def ahead(phi):  # in numpy's way: w - 0.2 d/dw, then the validation error
        g = jax.grad(error)(w, phi, task.support)
        return error(jax.tree.map(lambda w, g: w - 0.2 * g, w, g), phi, task.query)

    h = 1e-5
    up, down = (ahead(phi[None] + s * jnp.eye(3)) for s in (h, -h))
    np.testing.assert_allclose(phi - state.params, (up - down) / (2 * h), rtol=1e-6)


WEIGHTS = {"z": RANDOM.normal(size=(5, 5)) / 5, "x": RANDOM.normal(size=(3, 5))}
INPUTS = RANDOM.normal(size=(6, 3))


def layer(z, phi, x):
    """A contraction whose Jacobian is not symmetric."""
    return jnp.tanh(z @ phi["z"] + x @ phi["x"])


def equilibrium(adjoint, phi, steps=60):
    solve = jm.fixed_point(layer, inner_steps=steps, adjoint=adjoint)
    z, residual = solve(jnp.zeros((6, 5)), phi, jnp.asarray(INPUTS))
    return jnp.sum(jnp.sin(z)), residual


@pytest.fixture(scope="module")
def slope_at_equilibrium():
    """d/dphi by central differences along a direction, of a loop in numpy."""
    along = jax.tree.map(lambda a: np.cos(np.arange(a.size)).reshape(a.shape), WEIGHTS)

    def value(s):
        phi, z = jax.tree.map(lambda a, b: a + s * b, WEIGHTS, along), np.zeros((6, 5))
        for _ in range(200):
            z = np.tanh(z @ phi["z"] + INPUTS @ phi["x"])
        return np.sin(z).sum()

    return along, (value(1e-5) - value(-1e-5)) / 2e-5


GENERAL = [
    jm.Implicit("gmres", iterations=30),
    jm.Implicit("bicgstab", iterations=30),
    jm.Implicit("normal_cg", iterations=40),
    jm.Implicit("neumann", iterations=60, scale=1.0),
    jm.Implicit("dense"),
    jm.MixedMode(),
]


@pytest.mark.parametrize("adjoint", GENERAL, ids=NAMED)
def test_the_gradient_of_an_equilibrium(adjoint, slope_at_equilibrium):
    along, slope = slope_at_equilibrium
    run = jax.jit(jax.grad(partial(equilibrium, adjoint), has_aux=True))
    gradient, residual = run(WEIGHTS)
    assert residual < 1e-12
    np.testing.assert_allclose(optax.tree.vdot(gradient, along), slope, rtol=1e-8)


def test_an_iteration_that_has_not_come_far_says_so():
    assert (
        jax.jit(partial(equilibrium, jm.Implicit("dense"), steps=2))(WEIGHTS)[1] > 1e-2
    )


def test_an_inner_problem_may_be_a_fixed_point(slope_at_equilibrium):
    along, slope = slope_at_equilibrium
    learner = jm.bilevel(
        jm.FixedPoint(lambda z, phi, batch: layer(z, phi, batch.x)),
        lambda z, phi, batch: jnp.sum(jnp.sin(z)),
        init=lambda _: WEIGHTS,
        start=lambda _: jnp.zeros((6, 5)),
        inner_steps=60,
        inner_lr=1.0,
        adjoint=jm.Implicit("gmres", iterations=30),
    )
    task = jm.Task(jm.Batch(INPUTS), jm.Batch(INPUTS))
    grad = jax.jit(jax.grad(learner.objective, has_aux=True), static_argnums=(2, 3))
    gradient, metrics = grad(WEIGHTS, task, None, 0)
    np.testing.assert_allclose(optax.tree.vdot(gradient, along), slope, rtol=1e-8)
    assert metrics["inner_residual"] < 1e-12 and metrics["linear_residual"] < 1e-12


ADJOINTS = [
    jm.MixedMode(),
    jm.Implicit("cg", iterations=1),
    jm.Implicit("neumann", iterations=1, scale=0.3),
]
SOLVED = jm.tasks.single(NOTHING, NOTHING)


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=NAMED)
def test_ten_thousand_steps_need_the_memory_of_ten(adjoint):
    """And end at the solution, of implicit gradients without a bias: of a quadratic's."""
    outer = online(optax.sgd(0.01), adjoint=adjoint, inner_steps=2)
    own = key(4)
    step = lambda s, _: (
        outer.step(s, SOLVED, jax.random.fold_in(own, s.step))[0],
        None,
    )
    every = lambda n: jax.jit(lambda s: jax.lax.scan(step, s, None, n))
    state = outer.init(key(1))
    programs = {n: every(n).lower(state).compile() for n in (10, 10_000)}
    needs = [p.memory_analysis().temp_size_in_bytes for p in programs.values()]
    assert needs[0] == needs[1]
    end = programs[10_000](state)[0]
    assert end.step == 10_000
    if isinstance(adjoint, jm.Implicit):
        m = INVERSE @ B
        best = np.linalg.solve(m.T @ m + 0.1 * np.eye(3), m.T @ TARGET)
        np.testing.assert_allclose(end.params, best, rtol=1e-8)
        np.testing.assert_allclose(end.u, INVERSE @ (m @ best - TARGET), rtol=1e-8)


@pytest.mark.parametrize("adjoint", ADJOINTS[:2], ids=NAMED)
def test_online_training_goes_on_bit_for_bit(adjoint):
    """In `fit`, by minibatches, with an inner rule and an optimiser that remember."""
    x = RANDOM.normal(size=(20, 4)).astype(np.float32)
    error = lambda w, batch: jnp.mean((batch.x @ w - batch.y) ** 2)
    outer = jm.online_bilevel(
        lambda w, phi, batch: error(w, batch) + jnp.sum(jnp.exp(phi) * w**2),
        lambda w, phi, batch: error(w, batch),
        optax.adam(0.1),
        init=lambda _: jnp.zeros(4),
        start=lambda k: jax.random.normal(k, (4,)),
        rule=partial(optax.adam, eps_root=1e-8),
        inner_steps=2,
        adjoint=adjoint,
    )
    sets = jm.tasks.single(jm.Batch(x, x.sum(1)), jm.Batch(x, x.sum(1)), batch_size=5)
    run = partial(jm.fit, outer, sets, key=key(5), chunk=3)
    whole, half = run(steps=6), run(steps=3)
    again = run(steps=6, state=half)
    assert int(again.inner_state[0].count) == 12
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert not np.array_equal(whole.w, half.w)


def test_a_step_that_is_not_finite_moves_nothing():
    outer = online(optax.sgd(0.1))
    state = outer.init(key(6))
    step = jax.jit(outer.step)
    after, metrics = step(state._replace(w=jnp.full(4, jnp.nan)), SOLVED, key(7))
    assert metrics["skipped"] == 1 and after.step == 1
    np.testing.assert_array_equal(after.params, state.params)


def test_it_is_a_learner_of_many_tasks():
    """A start, learned as what w is a displacement of, by many tasks at once: MAML."""
    model = jm.models.mlp(hidden=(3,), activation=jnp.tanh)
    shifted = lambda w, phi: jax.tree.map(jnp.add, w, phi)

    def error(w, phi, batch):
        outputs = model.apply(shifted(w, phi), batch.x)
        return jnp.mean((outputs - batch.y) ** 2)

    learner = jm.bilevel(
        error,
        error,
        init=model.init,
        start=lambda k: jax.tree.map(jnp.zeros_like, model.init(k)),
        inner_steps=1,
        inner_lr=0.01,
        predict=lambda w, phi, x, mask: model.apply(shifted(w, phi), x),
    )
    maml = jm.maml(model, inner_lr=0.01, loss=jm.losses.mse)
    params = learner.init(key(1))
    tasks = jm.sample_tasks(jm.tasks.sinusoid(3, 3), key(8), 3)
    task = jax.tree.map(lambda a: a[0], tasks)

    def all_of(m):
        gradient = jm.meta_gradient(m)(params, tasks)[1]
        return gradient, m.predict(m.adapt(params, task.support), task.query.x)

    found, same = jax.jit(lambda: (all_of(learner), all_of(maml)))()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), found, same)


GIVEN = {"inner": quadratic, "outer": distance, "inner_steps": 2, **LEVELS}
REFUSED = [
    ({"outer": lambda w, phi, batch: jnp.zeros(())}, "outer: expected a function that"),
    ({"inner": lambda w, phi, batch: jnp.sum(w**2) + jnp.sum(phi**2),
      "outer": lambda w, phi, batch: w @ w}, "depends on phi"),
    ({"inner": lambda w, phi, batch: w @ w,
      "outer": lambda w, phi, batch: w @ w + jnp.sum(jax.lax.stop_gradient(phi))},
     "the steps of inner are the same"),
    ({"inner": lambda w, phi, batch: w}, r"inner: expected .* one number, .*\(4,\)"),
    ({"outer": lambda w, phi, batch: w}, r"outer: expected .* one number, .*\(4,\)"),
    ({"outer": lambda w, phi, batch: (w @ w, 1.0)}, "outer: expected .* metrics"),
    ({"start": lambda _: jnp.arange(4)}, "start: expected .* floating"),
    ({"init": lambda _: ()}, "init: expected .* floating arrays, got none"),
    ({"adjoint": jm.FirstOrder()}, "bilevel learns what the .* gives no gradient"),
    ({"inner": jm.FixedPoint(lambda w, phi, batch: w / 2), "adjoint": jm.Implicit()},
     "conjugate gradients .* symmetric .* 'gmres'"),
    ({"inner_steps": 0}, "inner_steps: expected a whole number >= 1"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "sentence"), REFUSED)
def test_what_can_not_be_gets_a_sentence(wrong, sentence):
    given = GIVEN | wrong
    with pytest.raises(ValueError, match=sentence):
        learner = jm.bilevel(**given)
        jax.eval_shape(learner.loss, learner.init(key(9)), TASK)
    with pytest.raises(ValueError, match=sentence):
        outer = jm.online_bilevel(**given, optimizer=optax.sgd(0.1))
        jax.eval_shape(outer.step, outer.init(key(10)), SOLVED, key(11))


def test_other_wrong_calls_get_a_sentence():
    learner = bilevel(inner_steps=1)
    with pytest.raises(ValueError, match="predict: this bilevel problem has none"):
        learner.predict(learner.adapt(jnp.asarray(PHI), NOTHING), np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"support: expected a jm.Batch"):
        learner.adapt(PHI, np.zeros(2))
    with pytest.raises(ValueError, match="solver: .* 'normal_cg'"):
        jm.fixed_point(layer, adjoint=jm.Implicit("cg"))
