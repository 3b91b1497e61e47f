"""Tests along one number: each point is the test that `evaluate` makes there."""

import jax
import numpy as np
import pytest

import jaxmeta as jm

KEY = jax.random.key(0)


def episodes(blobs, **sizes):
    return jm.tasks.episodes(blobs, **{"ways": 3, "shots": 1, "queries": 2, **sizes})


def test_an_adaptation_curve_is_of_the_same_tasks():
    model = jm.models.mlp(hidden=(4,))
    make = lambda n: jm.maml(model, inner_lr=0.01, loss=jm.losses.mse, inner_steps=n)
    params, test = make(1).init(KEY), jm.tasks.sinusoid()
    found = jm.curve(lambda n: (make(n), test), params, [0, 2], key=KEY, num_tasks=9)
    own = [jm.evaluate(make(n), params, test, key=KEY, num_tasks=9) for n in (0, 2)]
    assert found.values == (0, 2)
    assert found.mean("loss").tolist() == [report.mean["loss"] for report in own]
    assert found.ci95("loss").tolist() == [report.ci95["loss"] for report in own]


def test_curves_by_shots_and_by_ways_rise_and_fall(blobs):
    pixels = lambda ways: jm.nearest_neighbour(ways=ways)
    how = {"key": KEY, "num_tasks": 40}
    shots = jm.curve(lambda n: (pixels(3), episodes(blobs, shots=n)), (), (1, 5), **how)
    ways = jm.curve(
        lambda n: (pixels(n), episodes(blobs, ways=n)),
        *((), (2, 10)),
        metrics=jm.metrics.classification,
        **how,
    )
    assert np.all(np.diff(shots.mean("accuracy")) >= 0)
    assert np.all(np.diff(ways.mean("f1")) <= 0)


def test_what_is_no_curve_gets_a_sentence(blobs):
    of_ways = lambda n: jm.maml(jm.models.mlp(6, n, (4,)), inner_lr=0.1)
    make = lambda n: (of_ways(n), episodes(blobs, ways=n))
    params = of_ways(3).init(KEY)
    for wrong, values, sentence in (
        (make, (), "expected at least one"),
        (make, (3, 5), "at 5 the learner has parameters of other shapes"),
        (of_ways, (3,), "expected to get \\(learner, sampler\\)"),
        (None, (3,), "make: expected a function"),
    ):
        with pytest.raises(ValueError, match=sentence):
            jm.curve(wrong, params, values, key=KEY, num_tasks=2)
