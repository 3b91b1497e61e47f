"""What all learners keep that adapt from a labelled source to an unlabelled target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_points import start
from problems import double, make

import jaxmeta as jm
from jaxmeta import learners

pytestmark = pytest.mark.usefixtures("x64")

FAMILY = [n for n, e in learners.REGISTRY.items() if e.family == "adaptation"]
N, WAYS, DIMS = 20, 3, 6
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(N, DIMS)) + np.repeat([[0.0], [1.0]], N // 2, axis=0)
Y = np.where(np.arange(N) < N // 2, np.arange(N) % WAYS, -1)
MASK = np.ones(N)
MASK[[3, 15]] = 0  # a source example and one of the target are padding
QUERY = jm.Batch(RANDOM.normal(size=(8, DIMS)), np.arange(8) % WAYS)


@pytest.fixture(scope="module")
def trial(blobs):
    """name -> (task -> adapted, predictions, accuracy), one program a learner."""
    made = {}

    def get(name):
        if name not in made:
            learner, _ = make(name, "classification", blobs)
            with jax.enable_x64(True):
                params = start(learner)

            @jax.jit
            def run(task):
                adapted = learner.adapt(params, task.support, jax.random.key(1))
                outputs = learner.predict(adapted, task.query.x)
                return adapted, outputs, learner.loss(params, task)[1]["accuracy"]

            made[name] = lambda task: jax.device_get(run(double(task)))
        return made[name]

    return get


def task(x=X, y=Y, mask=MASK, labels=QUERY.y):
    return jm.Task(jm.Batch(x, jnp.asarray(y), mask), QUERY._replace(y=labels))


def same_bits(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(p, q) for p, q in leaves)


@pytest.mark.parametrize("name", FAMILY)
def test_labels_of_the_target_are_nowhere_in_what_is_adapted(trial, name):
    """Other labels of the query set change the score alone."""
    run = trial(name)
    adapted, outputs, accuracy = run(task())
    again, others, other = run(task(labels=(QUERY.y + 1) % WAYS))
    assert same_bits((adapted, outputs), (again, others))
    assert np.isfinite(outputs).all() and accuracy + other <= 1


@pytest.mark.parametrize("name", FAMILY)
def test_the_order_of_the_support_set_is_nothing(trial, name):
    """Domains are told apart by labels, not by their place."""
    run, order = trial(name), RANDOM.permutation(N)
    there = run(task())[1]
    again = run(task(X[order], Y[order], MASK[order]))[1]
    np.testing.assert_allclose(again, there, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", FAMILY)
def test_what_stands_in_the_padding_is_nothing(trial, name):
    run, there = trial(name), trial(name)(task())
    for value in (0.0, 1e30, np.nan):
        x = np.where(MASK[:, None] > 0, X, value)
        y = np.where(MASK > 0, Y, WAYS - 1)
        assert same_bits(run(task(x, y)), there)


@pytest.mark.parametrize("name", FAMILY)
def test_the_target_counts_or_it_does_not(trial, name):
    """Other target examples change what is adapted, but for the baseline."""
    run = trial(name)
    other = np.where(Y[:, None] == -1, X[::-1] * 2 + 1, X)
    same = same_bits(run(task())[1], run(task(other))[1])
    assert same == (name == "source_only")


@pytest.mark.parametrize("name", FAMILY)
def test_without_a_target_nothing_is_adapted(trial, name):
    """Under jit, where nothing can be refused: NaN, and no network of the source alone."""
    known = np.where(Y < 0, 0, Y)
    _, outputs, _ = trial(name)(task(y=known))
    gone = [np.isnan(a) | np.isneginf(a) for a in jax.tree.leaves(outputs)]
    assert all(a.all() for a in gone)
