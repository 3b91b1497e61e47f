"""Solver and amortized learners: wrong arguments get a sentence."""

import jax
import pytest
from few_points import IDENTITY, TASK, WAYS

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


BAD = [
    (lambda: jm.metaoptnet(IDENTITY, head="tree"), "head: expected one of svm, ridge"),
    (lambda: jm.metaoptnet(IDENTITY, penalty=0.0), "penalty: expected a number > 0, got 0"),
    (lambda: jm.metaoptnet(IDENTITY, diagonal=0.0), "diagonal: expected a number > 0"),
    (lambda: jm.lrd2(IDENTITY, penalty=-1.0), "penalty: expected a number > 0, got -1"),
    (lambda: jm.r2d2(IDENTITY, penalty=0.0), "penalty: expected a number > 0, got 0"),
    (lambda: jm.versa(IDENTITY, samples=0), "samples: expected a whole number >= 1"),
    (lambda: jm.mann(IDENTITY, gamma=1.5), r"gamma: .*\[0, 1\], got 1.5"),
    (lambda: jm.mann(IDENTITY, slots=2, reads=3), "reads: .* in 1..2, got 3"),
    (lambda: jm.snail(IDENTITY, scale=0.0), "scale: expected a number > 0"),
    (lambda: jm.neural_process(IDENTITY, IDENTITY, IDENTITY, min_std=1.0), "min_std"),
    (lambda: jm.anp(*[IDENTITY] * 4, samples=0), "samples: expected a whole number"),
    (lambda: jm.anp(*[IDENTITY] * 4, train_samples=0), "train_samples: expected a whole"),
    (lambda: jm.tnpd(width=10, heads=4), "a width that heads divides, got 10 and 4"),
    (lambda: jm.in_context(width=10, heads=4), "a width that heads divides"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), BAD)
def test_bad_arguments_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_context_that_does_not_fit_is_refused():
    for learner, sentence in (
        (
            jm.mann(IDENTITY, ways=WAYS, features=4, hidden=2, slots=4),
            "slots: .* 6 rows",
        ),
        (jm.snail(IDENTITY, ways=WAYS, features=4, length=5), "length: .* has 6 rows"),
        (
            jm.in_context(ways=WAYS, x_dims=3),
            "x_dims: expected inputs of 3 columns, got 4",
        ),
    ):
        params = learner.init(jax.random.key(0))
        with pytest.raises(ValueError, match=sentence):
            learner.adapt(params, TASK.support)
