"""Episodes whose examples have several labels."""

import jax
import numpy as np
import optax
import pytest
from problems import many_tasks
from scipy.special import expit
from sklearn.metrics import f1_score

import jaxmeta as jm

random = np.random.default_rng(0)
DIRECTIONS = random.normal(size=(10, 6))
X = random.normal(size=(300, 6)).astype(np.float32)
TAGS = X @ DIRECTIONS.T > 0.5  # a label is on one side of a plane
DATA = jm.data.from_arrays(X, ["all"] * 300, targets=TAGS)


def test_labels_are_those_of_the_examples_and_none_is_there_twice():
    sampler = jm.tasks.multi_label(DATA, 4, shots=3, queries=5, labels=range(2, 9))
    tasks = jax.device_get(many_tasks(sampler, jax.random.key(0), 60))
    keys = jm.keys.tasks(jax.random.key(0), 60)
    plans = jax.device_get(jax.jit(jax.vmap(sampler.plan))(keys))
    place = {tuple(x): i for i, x in enumerate(X)}
    drawn = set()
    for i in range(60):
        support, query = jax.tree.map(lambda a, i=i: a[i], tasks)
        labels = plans[0][i] + 2
        drawn |= set(labels.tolist())
        rows, counted = [], []
        for batch, each in ((support, 3), (query, 5)):
            here = np.array([place[tuple(x)] for x in batch.x])
            np.testing.assert_array_equal(batch.y, TAGS[here][:, labels])
            # drawn for each label in turn, among those that have it
            assert all(batch.y[each * w : each * (w + 1), w].all() for w in range(4))
            rows += here.tolist()
            counted += (batch.mask > 0).tolist()
        seen = [row for row, counts in zip(rows, counted, strict=True) if counts]
        assert len(set(seen)) == len(seen) and set(seen) == set(rows)
    assert drawn == set(range(2, 9))


def test_every_example_of_a_label_has_the_same_chance():
    sampler = jm.tasks.multi_label(DATA, 1, shots=1, queries=1, labels=[3])
    tasks = many_tasks(sampler, jax.random.key(0), 6000)
    _, counts = np.unique(np.asarray(tasks.support.x)[:, 0, 0], return_counts=True)
    expected = 6000 / TAGS[:, 3].sum()
    assert len(counts) == TAGS[:, 3].sum()
    assert np.square(counts - expected).sum() / expected < 1.6 * len(counts)


def test_the_loss_and_its_score_are_scikit_learns():
    outputs, y = random.normal(size=(12, 4)), random.random((12, 4)) < 0.5
    each = jax.jit(jm.losses.binary_cross_entropy)(outputs, y)
    p = expit(outputs)
    np.testing.assert_allclose(each, -np.log(np.where(y, p, 1 - p)), rtol=1e-5)
    mask = np.arange(12) < 9
    batch = jm.Batch(None, y, np.float32(mask))
    found = jax.jit(jm.losses.score)(outputs, batch)
    right = (outputs > 0) == y
    np.testing.assert_allclose(found["accuracy"], right[mask].mean(), rtol=1e-6)
    f1 = f1_score(y[mask], outputs[mask] > 0, average="micro")
    np.testing.assert_allclose(found["f1"], f1, rtol=1e-6)


@pytest.mark.parametrize("name", ["maml", "reptile"])
def test_learners_learn_labels_they_have_not_seen(name):
    model = jm.models.mlp(6, 3, (32,))
    loss = jm.losses.binary_cross_entropy
    learner = getattr(jm, name)(model, inner_lr=0.3, inner_steps=3, loss=loss)
    train, test = (
        jm.tasks.multi_label(DATA, 3, shots=8, queries=8, labels=labels)
        for labels in (range(7), range(7, 10))
    )
    state = jm.fit(learner, train, optax.adam(1e-2), steps=150, key=jax.random.key(0))
    report = lambda params: jm.evaluate(
        learner, params, test, num_tasks=100, key=jax.random.key(1)
    )
    before, after = report(learner.init(jax.random.key(0))), report(state.params)
    assert after.mean["loss"] < before.mean["loss"]
    assert after.mean["f1"] > 0.6 and after.mean["f1"] > before.mean["f1"]


def test_bad_data_are_refused_in_words():
    numbers = jm.data.from_arrays(X, ["all"] * 300, targets=X)
    few = jm.data.from_arrays(X[:9], ["all"] * 9, targets=TAGS[:9])
    plain = jm.data.from_arrays(X, ["all"] * 300)
    for data, given, said in (
        (numbers, {}, "targets .examples, labels. of 0 and 1"),
        (plain, {}, "targets .examples, labels. of 0 and 1"),
        (few, {}, r"3 \+ 5 examples of each label wanted, label \d has|label \d of"),
        (DATA, {"labels": [1, 1, 2, 3]}, "different numbers in 0..9"),
        (DATA, {"labels": [8, 9, 10, 1]}, "different numbers in 0..9"),
        (DATA, {"labels": [1, 2]}, "4 labels wanted, .* has 2"),
    ):
        with pytest.raises(ValueError, match=said):
            jm.tasks.multi_label(data, 4, shots=3, queries=5, **given)
