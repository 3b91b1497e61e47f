"""Combiners of gradients: published numbers, what each promises, and training with them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

import jaxmeta as jm
from jaxmeta import combiners
from jaxmeta.solvers import minimum

KEY = jax.random.key(0)
J = np.array([[-4.0, 1, 1], [6, 1, 1]])
EXACT = {
    "upgrad": partial(combiners.upgrad, regularization=0.0),
    "dualproj": partial(combiners.dualproj, regularization=0.0),
}
# the test suite of TorchJD (github.com/TorchJD/torchjd), to its four digits
PUBLISHED = {
    "mean": (1, 1, 1),
    "mgda": (0, 1, 1),
    "pcgrad": (0.5848, 3.8012, 3.8012),
    "cagrad": (0.1835, 1.2041, 1.2041),
    "imtl_g": (0.0767, 1, 1),
    "nash_mtl": (0.0542, 0.7061, 0.7061),
    "aligned_mtl": (0.2133, 0.9673, 0.9673),
    "upgrad": (0.2929, 1.9004, 1.9004),
    "dualproj": (0.5563, 1.1109, 1.1109),
}

ALL = {name: getattr(combiners, name) for name in PUBLISHED}


@jax.jit
def weights(gramian):
    """Of all combiners, in one program."""
    named = ALL | {f"exact {name}": f for name, f in EXACT.items()}
    named["no radius"] = partial(combiners.cagrad, c=0.0)
    return {name: f(gramian, jax.random.key(0)) for name, f in named.items()}


def combined(rows):
    """name -> J' w, in the precision of the rows."""
    found = weights(jnp.asarray(rows) @ jnp.asarray(rows).T)
    return {name: np.asarray(w) @ np.asarray(rows) for name, w in found.items()}


def test_published_numbers():
    found = combined(J.astype(np.float32))
    for name, wanted in PUBLISHED.items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-4, err_msg=name)
    w = weights(jnp.asarray(J @ J.T, jnp.float32))
    np.testing.assert_allclose(w["mgda"], (0.6, 0.4), atol=1e-4)
    np.testing.assert_allclose(w["pcgrad"], (2.2222, 1.5789), atol=1e-4)


def test_projections_of_two_gradients_have_a_closed_form():
    """g_1 loses its part along g_2, and the other way round."""
    (a, b), product = J, J[0] @ J[1]
    free = [a - product / (b @ b) * b, b - product / (a @ a) * a]
    found = combined(J.astype(np.float32))
    np.testing.assert_allclose(found["exact upgrad"], np.mean(free, 0), atol=1e-5)
    np.testing.assert_allclose(found["pcgrad"], np.sum(free, 0), atol=1e-5)
    mean = (a + b) / 2  # conflicts with the first alone
    wanted = mean - (mean @ a) / (a @ a) * a
    np.testing.assert_allclose(found["exact dualproj"], wanted, atol=1e-5)


def draws():
    """Gradients [5, parameters] of many scales; three parameters: they depend on each
    other."""
    random = np.random.default_rng(0)
    for i in range(20):
        parameters = (3, 8)[i % 2]
        size = 10 ** random.uniform(-2, 2, size=(5, 1))
        yield size * random.normal(size=(5, parameters))


def test_what_each_promises(x64):
    for rows in draws():
        found, norms = combined(rows), np.linalg.norm(rows, axis=1)
        for name in ("mgda", "exact upgrad", "exact dualproj"):
            agreement = rows @ found[name] / norms / norms.mean()
            assert agreement.min() > -1e-9, name
        w = {n: np.asarray(v) for n, v in weights(jnp.asarray(rows @ rows.T)).items()}
        assert w["mgda"].min() >= 0 and w["mgda"].sum() == pytest.approx(1)
        # the shortest of the hull: all of it is on one side
        shortest = found["mgda"] @ found["mgda"]
        assert (rows @ found["mgda"]).min() > shortest - 1e-8 * (norms**2).mean()
        for name in EXACT:
            assert w[f"exact {name}"].min() > 0
        g_0, g = (
            rows.mean(0),
            found["cagrad"],
        )  # in the ball, the worst off is better off
        assert np.linalg.norm(g - g_0) < 0.5 * np.linalg.norm(g_0) * (1 + 1e-4)
        assert (rows @ g).min() >= (rows @ g_0).min()
        if rows.shape[1] < 5:
            continue  # the others are of gradients that are independent
        along = rows @ found["imtl_g"] / norms
        np.testing.assert_allclose(along, along[0], rtol=1e-6)
        gain = w["nash_mtl"] * (rows @ found["nash_mtl"])
        np.testing.assert_allclose(gain, gain[0], rtol=1e-3)
        assert np.linalg.norm(found["nash_mtl"]) == pytest.approx(1)


def test_aligned_gradients_are_at_right_angles(x64):
    """Beside numpy's own decomposition of J: g = s_min V U' 1/m."""
    for rows in draws():
        u, s, vt = np.linalg.svd(rows, full_matrices=False)
        wanted = s.min() * vt.T @ u.T @ np.full(5, 0.2)
        np.testing.assert_allclose(combined(rows)["aligned_mtl"], wanted, atol=1e-6)


def test_orders_of_pcgrad_beside_loops(x64):
    random = np.random.default_rng(1)
    rows, seen = random.normal(size=(3, 4)), set()
    run = jax.jit(combiners.pcgrad)
    for seed in range(12):
        key = jax.random.key(seed)
        total = np.zeros(4)
        for i, own in enumerate(jax.random.split(key, 3)):
            g = rows[i].copy()
            for j in np.asarray(jax.random.permutation(own, jnp.arange(3))):
                if j != i and g @ rows[j] < 0:
                    g -= (g @ rows[j]) / (rows[j] @ rows[j]) * rows[j]
            total += g
        found = run(jnp.asarray(rows @ rows.T), jax.random.key(seed)) @ rows
        np.testing.assert_allclose(found, total, rtol=1e-10)
        seen.add(round(float(total[0]), 6))
    assert len(seen) > 1  # the order matters


def test_without_conflict_pcgrad_is_the_sum_and_without_radius_cagrad_is_the_mean():
    rows = np.abs(J).astype(np.float32)
    assert (rows @ rows.T > 0).all()
    np.testing.assert_array_equal(weights(rows @ rows.T)["pcgrad"], 1)
    np.testing.assert_allclose(weights(rows @ rows.T)["exact upgrad"], 1 / 2, atol=1e-5)
    np.testing.assert_array_equal(weights(rows @ rows.T)["no radius"], 0.5)


def test_no_gradient_one_gradient_and_one_that_is_not_finite():
    for rows in (np.zeros((2, 3)), np.array([[0.0, 0, 0], [6, 1, 1]])):
        for name, w in weights(jnp.asarray(rows @ rows.T, jnp.float32)).items():
            assert np.isfinite(w).all(), name
            assert rows.any() or not (np.asarray(w) @ rows).any()
    one = np.array([[6.0, 1, 1]], np.float32)
    size = {"nash_mtl": 1 / np.linalg.norm(one), "cagrad": 1.5}  # 1 + c of g_0
    for name, g in combined(one).items():
        np.testing.assert_allclose(g, size.get(name, 1) * one[0], rtol=2e-4)
    bad = jnp.asarray([[1.0, 0], [np.nan, 1]])
    for name, w in weights(bad @ bad.T).items():
        assert not np.isfinite(np.asarray(w) @ np.asarray(bad)).all(), name


def test_positive_minimum_beside_active_sets(x64):
    """Of every choice of weights that are 0, the best that is allowed."""
    random = np.random.default_rng(2)
    run = jax.jit(
        lambda a, c, s: minimum(lambda w: w @ a @ w / 2 - c @ w, s),
    )
    for _ in range(5):
        root, c = random.normal(size=(4, 4)), random.normal(size=4)
        a, best = root @ root.T + 0.1 * np.eye(4), (np.inf, np.zeros(4))
        for mask in range(16):
            free = [i for i in range(4) if mask >> i & 1]
            w = np.zeros(4)
            w[free] = np.linalg.solve(a[np.ix_(free, free)], c[free])
            if w.min() >= 0:
                best = min(best, (w @ a @ w / 2 - c @ w, w), key=lambda pair: pair[0])
        np.testing.assert_allclose(run(a, c, jnp.ones(4)), best[1], atol=1e-7)


WAVES = jm.tasks.sinusoid(shots=3, queries=3)
SMALL = jm.models.mlp(hidden=(4,))
LEARNER = jm.maml(SMALL, inner_lr=0.01, loss=jm.losses.mse)
ADAM = optax.adam(1e-3)


def line():
    """A learner of the slope and height of all tasks."""

    def loss(params, task, key=None):
        error = params[0] * task.query.x + params[1] - task.query.y
        return jnp.mean(error**2), {"loss": jnp.mean(error**2)}

    return jm.MetaLearner(lambda key: jnp.ones(2), None, None, loss)  # ty: ignore


LINE = line()


def test_the_mean_of_task_gradients_is_the_meta_gradient(x64):
    params = jax.tree.map(lambda a: a.astype(float), LEARNER.init(KEY))
    tasks = jm.sample_tasks(WAVES, jax.random.key(1), 4)
    ours, wanted = (
        jax.jit(f)(params, tasks, KEY)
        for f in (
            jm.task_gradients(LEARNER, combiners.mean, tasks_at_once=2),
            jm.meta_gradient(LEARNER),
        )
    )
    for a, b in zip(*(jax.tree.leaves(f[1]) for f in (ours, wanted)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    (value, metrics), _ = ours
    assert float(value) == pytest.approx(float(wanted[0][0]))
    assert 0 <= float(metrics["conflicts"]) <= 1 and not metrics["diverged"]


def test_training_goes_on_bit_for_bit_and_is_the_same_on_a_mesh():
    """With the order of pcgrad, which is drawn anew in each meta-step."""
    gradient = jm.task_gradients(LINE, combiners.pcgrad)
    run = partial(jm.fit, chunk=3, key=KEY)
    outer = jm.make_outer(LINE, ADAM, gradient=gradient)
    whole = run(outer, WAVES, steps=6)
    again = run(outer, WAVES, steps=6, state=run(outer, WAVES, steps=3))
    mesh = Mesh(np.array(jax.devices()[:2]), ("tasks",))
    many = run(jm.make_outer(LINE, ADAM, gradient=gradient, mesh=mesh), WAVES, steps=6)
    for a, b, c in zip(*map(jax.tree.leaves, (whole, again, many)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-6)


def test_a_step_with_a_task_that_diverges_is_not_taken():
    tasks = jm.sample_tasks(WAVES, jax.random.key(1), 4)
    bad = tasks.query.y.at[2].set(jnp.inf)
    tasks = tasks._replace(query=tasks.query._replace(y=bad))
    step = jm.make_step(LINE, ADAM, gradient=jm.task_gradients(LINE, combiners.mgda))
    after, metrics = step(jm.init_state(LINE, ADAM, KEY), tasks, KEY)
    np.testing.assert_array_equal(after.params, 1)
    assert metrics["skipped"] == 1 and metrics["diverged"] == 0.25


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: combiners.mgda(jnp.ones((2, 3))), r"gramian: expected .*\(2, 3\)"),
        (lambda: combiners.mean(jnp.ones((2, 2), int)), "gramian: expected floating"),
        (lambda: combiners.pcgrad(jnp.eye(2)), "key: expected a typed key"),
        (lambda: combiners.cagrad(jnp.eye(2), c=1.0), "c: expected a number"),
        (lambda: combiners.nash_mtl(jnp.eye(2), max_norm=0), "max_norm: expected"),
        (
            lambda: combiners.upgrad(jnp.eye(2), regularization=-1),
            "regularization: expected",
        ),
        (
            lambda: jax.eval_shape(
                jm.task_gradients(LINE, lambda gramian, key: jnp.ones(3)),
                jnp.ones(2),
                jm.sample_tasks(WAVES, jax.random.key(1), 2),
            ),
            r"combine: expected weights of shape \(2,\), one a task, got",
        ),
    ],
)
def test_wrong_arguments_get_a_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        wrong()
