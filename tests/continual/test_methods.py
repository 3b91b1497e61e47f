"""Methods for streams, against closed forms and numpy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import chi2

import jaxmeta as jm
from jaxmeta.continual import agem, ewc, si
from jaxmeta.continual.agem import projected
from jaxmeta.continual.memory import empty, recalled, remembering

RANDOM = np.random.default_rng(0)
PARTS, N, DIMS = 3, 12, 4
LINEAR = jm.Model(lambda key: {"w": jnp.zeros((DIMS, 1))}, lambda p, x: x @ p["w"])


def linear_parts(uncorrelated):
    """Targets of other weights in each part, and noise."""
    x = RANDOM.normal(size=(PARTS, N, DIMS))
    if uncorrelated:  # columns that are orthogonal, of different lengths
        x = np.linalg.qr(x)[0] * N**0.5 * RANDOM.uniform(0.5, 1.5, (PARTS, 1, DIMS))
    w = RANDOM.normal(size=(PARTS, DIMS, 1))
    return jm.Batch(x, x @ w + 0.1 * RANDOM.normal(size=(PARTS, N, 1)))


def learnt(online, stream, steps=1500):
    """Whole parts, step after step, until nothing moves. Returns: the last state."""

    @jax.jit
    def run(stream):
        first = jax.tree.map(lambda a: a[0], stream)
        key = jax.random.key(0)

        def part(state, batch):
            step = lambda s, _: (online.observe(s, batch, None)[0], None)
            state = jax.lax.scan(step, state, None, steps)[0]
            return online.end(state, batch, None), None

        return jax.lax.scan(part, online.init(key, first), stream)[0]

    return run(stream)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("full", [True, False], ids=["full", "diagonal"])
def test_ewc_of_linear_gaussian_parts_is_the_joint_solution(full):
    stream = linear_parts(uncorrelated=not full)
    online = ewc(LINEAR, optax.sgd(0.05), full=full, loss=jm.losses.mse)
    w = learnt(online, stream).params["w"]
    x, y = (np.reshape(a, (PARTS * N, -1)) for a in stream[:2])
    joint = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(w, joint, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_fisher_information_of_a_softmax():
    """J' (diag p - pp') J of examples that count, in numpy."""
    x, y = RANDOM.normal(size=(5, 3)), RANDOM.integers(0, 4, 5)
    model = jm.models.mlp(3, 4, ())
    batch = jm.Batch(x, y, np.array([1.0, 1, 0, 1, 0]))
    online = ewc(model, optax.sgd(0.1), full=True, decay=0.5)

    @jax.jit
    def twice(batch):
        state = online.init(jax.random.key(0), batch)
        return online.end(online.end(state, batch, None), batch, None)

    state = twice(batch)
    head, wanted = state.params["head"], np.zeros((16, 16))
    for row in x[batch.mask > 0]:
        z = row @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
        p = np.exp(z) / np.exp(z).sum()
        j = np.concatenate([np.eye(4), np.kron(row[None], np.eye(4))], 1)  # bias first
        wanted += j.T @ (np.diag(p) - np.outer(p, p)) @ j / 3
    np.testing.assert_allclose(state.fisher, 1.5 * wanted, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_path_integrals_of_si_add_up_to_the_fall_of_the_loss():
    model = jm.models.mlp(3, 2, (6,), activation=jnp.tanh)
    batch = jm.Batch(RANDOM.normal(size=(10, 3)), RANDOM.integers(0, 2, 10))
    online = si(model, optax.sgd(0.01), strength=3.0)

    @jax.jit
    def run(batch):
        state = online.init(jax.random.key(0), batch)
        step = lambda s, _: (lambda s, m: (s, m["loss"]))(
            *online.observe(s, batch, None)
        )
        state, path = jax.lax.scan(step, state, None, 200)
        return state, path, online.end(state, batch, None)

    state, values, after = jax.device_get(run(batch))
    fall = values[0] - values[-1]
    found = sum(np.sum(a) for a in jax.tree.leaves(state.path))
    assert abs(found - fall) < 0.01 * fall and fall > 0.05
    moved = jax.tree.map(lambda a, b: (a - b) ** 2, state.params, state.anchor)
    weigh = lambda path, m: np.maximum(path / (m + 1e-3), 0)
    wanted = jax.tree.map(weigh, state.path, moved)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), after.weight, wanted)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sign", [1, -1])
def test_agem_projects_a_step_against_its_memory(sign):
    x, y = RANDOM.normal(size=(2, 3, DIMS)), RANDOM.normal(size=(2, 3, 1))
    slope = lambda x, y: -2 / 3 * x.T @ y  # at w = 0, of the mean squared error
    old, new = slope(x[0], y[0]), slope(x[1], y[1])
    y[1] *= sign * np.sign(np.vdot(old, new))  # sign: whether they agree
    g = slope(x[1], y[1])
    online = agem(LINEAR, optax.sgd(0.5), memory=3, recall=3, loss=jm.losses.mse)
    known, batch = jm.Batch(x[0], y[0]), jm.Batch(x[1], y[1])

    @jax.jit
    def run(known, batch):
        start = online.init(jax.random.key(0), known)
        state = online.end(start, known, jax.random.key(1))
        nothing, _ = online.observe(start, batch, jax.random.key(3))
        return nothing, *online.observe(state, batch, jax.random.key(2))

    nothing, state, metrics = jax.device_get(run(known, batch))
    step = -state.params["w"] / 0.5
    np.testing.assert_allclose(-nothing.params["w"] / 0.5, g, atol=1e-12)
    assert metrics["conflict"] == (sign < 0)
    if sign > 0:
        np.testing.assert_allclose(step, g, atol=1e-12)
    else:
        assert abs(np.vdot(step, old)) < 1e-12 and np.vdot(step, g) > 0
        np.testing.assert_allclose(projected(g, old), step, atol=1e-12)


def test_a_reservoir_keeps_each_example_with_equal_probability():
    streams, n, places = 3000, 12, 4
    y = np.arange(n, dtype=np.int32)
    batch = jm.Batch(y[:, None], y, np.float32(y < n - 1))

    @jax.jit
    @jax.vmap
    def kept(key):
        key_first, key_rest, key_recall = jax.random.split(key, 3)
        first, rest = (
            jax.tree.map(lambda a, p=p: a[p], batch) for p in (slice(5), slice(5, n))
        )
        memory = remembering(empty(first, places), first, key_first)
        memory = remembering(memory, rest, key_rest)
        return memory, recalled(memory, 2, key_recall)

    memory, drawn = jax.device_get(kept(jax.random.split(jax.random.key(0), streams)))
    assert np.all(memory.seen == n - 1) and np.array_equal(memory.x[..., 0], memory.y)
    assert np.all(np.diff(np.sort(memory.y, axis=1), axis=1) > 0)  # all different
    for chosen, share in ((memory.y, places), (drawn.y, 2)):
        counts, p = np.bincount(np.ravel(chosen), minlength=n)[:-1], share / (n - 1)
        assert len(counts) == n - 1 and np.all(drawn.y[:, 0] != drawn.y[:, 1])
        spread = np.square(counts - streams * p).sum() / (streams * p * (1 - p))
        assert spread * (n - 2) / (n - 1) < chi2.ppf(0.999, n - 2)


def test_a_memory_that_is_not_full_is_masked():
    batch = jm.Batch(jnp.arange(2.0)[:, None], jnp.arange(2))
    memory = remembering(empty(batch, 4), batch, jax.random.key(0))
    drawn = recalled(memory, 3, jax.random.key(1))
    assert drawn.mask.tolist() == [1, 1, 0] and set(drawn.y[:2].tolist()) == {0, 1}
