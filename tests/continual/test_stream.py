"""A stream is run part by part, and what is wrong with it is said."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

import jaxmeta as jm
from jaxmeta import continual

RANDOM = np.random.default_rng(0)
MODEL = jm.models.mlp(3, 4, ())
SGD = optax.sgd(0.5)
METHODS = {
    "plain": continual.plain(MODEL, SGD),
    "ewc": continual.ewc(MODEL, SGD, strength=0.1),
    "replay": continual.replay(MODEL, SGD, memory=6, replayed=3),
    "agem": continual.agem(MODEL, SGD, memory=6, recall=4),
}


def stream(padding=0.0):
    """Two parts of two classes, apart from each other; the second has one example less."""
    y = np.array([[0, 0, 1, 1, 1], [2, 2, 3, 3, 99]])
    centres = 2 + 2 * np.eye(4)[:, :3] - np.eye(4)[:, [3]]
    x = centres[y % 4] + 0.1 * np.random.default_rng(0).normal(size=(2, 5, 3))
    x[1, -1] = padding
    return jm.Batch(x.astype(np.float32), y, np.array([[1.0] * 5, [1.0] * 4 + [0]]))


def run(online, given=None, **how):
    given = stream() if given is None else given
    return continual.run(online, given, given, jax.random.key(0), **how)


def test_what_is_in_the_padding_changes_nothing_and_replay_remembers():
    how = {"batch_size": 2, "epochs": 6}
    methods = {n: m for n, m in METHODS.items() if n != "plain"}
    found = {name: run(online, **how) for name, online in methods.items()}
    for name, online in methods.items():
        again = run(online, stream(np.nan), **how)
        jax.tree.map(np.testing.assert_array_equal, found[name], again)
        assert (
            np.isfinite(found[name].accuracy).all() and not found[name].diverged.any()
        )
        assert found[name].came_back.tolist() == [0, 0]
    ends = {n: float(continual.average_accuracy(r.accuracy)) for n, r in found.items()}
    lost = {n: float(continual.forgetting(r.accuracy)) for n, r in found.items()}
    assert ends["ewc"] == 0.5 and lost["ewc"] == 1  # its strength is small
    assert ends["replay"] > 0.9 and lost["replay"] < 0.2


@pytest.mark.usefixtures("x64")
def test_a_run_is_one_step_after_the_other():
    """By hand: one minibatch a part, in numpy."""
    given = stream()
    found = run(METHODS["plain"], given, batch_size=5)
    start = METHODS["plain"].init(jax.random.split(jax.random.key(0))[0], given)
    w, b = (np.asarray(start.params["head"][n], np.float64) for n in ("kernel", "bias"))
    for x, y, mask in zip(*given, strict=True):
        x, y = x[mask > 0], y[mask > 0]
        p = np.exp(x @ w + b)
        error = (p / p.sum(1, keepdims=True) - np.eye(4)[y]) / len(y)
        w, b = w - 0.5 * x.T @ error, b - 0.5 * error.sum(0)
    np.testing.assert_allclose(found.state.params["head"]["kernel"], w, atol=1e-5)
    right = [
        np.mean((x @ w + b).argmax(1)[m > 0] == y[m > 0])
        for x, y, m in zip(*given, strict=True)
    ]
    np.testing.assert_allclose(found.accuracy[-1], right)


def test_a_class_that_comes_back_is_counted():
    given = stream()
    given.y[1, :2] = 1
    assert run(METHODS["plain"], given, batch_size=2, epochs=6).came_back.tolist() == [
        0,
        1,
    ]


def test_a_network_that_is_not_finite_is_counted():
    given = stream()
    given.x[...] = 3e38
    found = run(METHODS["plain"], given, batch_size=2, epochs=6)
    assert found.diverged.all() and np.isnan(found.accuracy).all()


def test_a_label_out_of_range_is_no_number_under_jit():
    given = stream()
    given.y[1, 0] = 4
    with pytest.raises(ValueError, match=r"stream labels: .* 0\.\.3 .* got \[4\]"):
        run(METHODS["plain"], given)
    inside = jax.jit(lambda given: run(METHODS["plain"], given, batch_size=2, epochs=6))
    found = inside(given)
    assert found.diverged.tolist() == [False, True]
    assert np.isnan(found.accuracy[1]).all() and np.isnan(found.accuracy[0, 1])
    assert np.isfinite(found.accuracy[0, 0])


NOTHING = jm.Batch(np.zeros((0, 5, 3)), np.zeros((0, 5), int))
VALUES = jm.Batch(np.zeros((2, 5, 3)), np.zeros((2, 5)))
FLAT = jm.Batch(np.zeros((5, 3)), np.zeros(5, int))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (NOTHING, r"stream: it is empty, y has shape \(0, 5\); expected at least one"),
        (stream()._replace(mask=np.array([[1.0] * 5, [0.0] * 5])), "a part is empty"),
        (
            VALUES,
            r"stream: expected labels y \[parts, examples\], integers, got .*float",
        ),
        (
            FLAT,
            r"stream: expected labels y \[parts, examples\], integers, got .*\(5,\)",
        ),
        (stream()._replace(x=np.zeros((2, 4, 3))), "x has 4 examples, y has 5"),
    ],
)
def test_a_stream_that_is_none_gets_a_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(METHODS["plain"], given)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            partial(continual.replay, MODEL, SGD, memory=0),
            "memory: expected a whole number >= 1, got 0",
        ),
        (
            partial(continual.replay, MODEL, SGD, memory=4, replayed=5),
            r"replayed: expected a whole number in 1\.\.4, got 5",
        ),
        (partial(continual.forgetting, np.ones((2, 3))), r"accuracy: expected \[parts"),
        (partial(continual.forgetting, np.ones((1, 1))), "of at least 2 parts"),
        (partial(continual.average_accuracy, np.ones(3)), r"expected \[seen, tested\]"),
    ],
)
def test_a_wrong_call_gets_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_parts_are_of_classes_in_order(blobs):
    backwards = blobs.select(range(19, -1, -1))
    given = continual.parts(backwards, 5)
    assert given.x.shape == (4, 40, 6) and given.y[0, :9].tolist() == [0] * 8 + [1]
    np.testing.assert_array_equal(given.x[3, -8:], blobs.of(0).astype(np.float32))
    with pytest.raises(ValueError, match="each: expected a divisor of the 20 classes"):
        continual.parts(blobs, 3)
