"""Scores beside scikit-learn's, calibration and classes beside a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import log_loss, precision_recall_fscore_support

import jaxmeta as jm

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("padding", [0, 3])
def test_classification_is_scikit_learns(padding):
    y = np.array([0, 0, 1, 1, 1, 2, 2])
    logits = RANDOM.normal(size=(7, 4)) - 9 * (np.arange(4) == 3)  # class 3 is absent
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    with np.errstate(all="ignore"):
        wanted = precision_recall_fscore_support(
            y, logits.argmax(1), average="macro", zero_division=0, labels=[0, 1, 2]
        )
    more = np.full((padding, 4), np.nan), np.full(padding, 99)
    mask = np.repeat([1.0, 0.0], [7, padding]) if padding else None
    given = (
        np.concatenate([logits, np.nan_to_num(more[0])]),
        np.concatenate([y, more[1]]),
    )
    with jax.enable_x64(True):
        query = jm.Batch(None, jnp.asarray(given[1]), mask)
        found = jm.metrics.classification(jnp.asarray(given[0]), query)
    for name, value in zip(("precision", "recall", "f1"), wanted[:3], strict=True):
        assert float(found[name]) == pytest.approx(value, abs=1e-12)
    loss = log_loss(y, chances, labels=[0, 1, 2, 3])
    assert float(found["log_likelihood"]) == pytest.approx(-loss, abs=1e-12)


def test_regression_is_scipys():
    y, mean, std = (RANDOM.normal(size=(5, 2)) for _ in range(3))
    std = np.abs(std) + 0.1
    with jax.enable_x64(True):
        query = jm.Batch(None, jnp.asarray(y))
        found = jm.metrics.regression((jnp.asarray(mean), jnp.asarray(std)), query)
    assert float(found["mse"]) == pytest.approx(((mean - y) ** 2).mean())
    wanted = norm.logpdf(y, mean, std).mean()
    assert float(found["log_likelihood"]) == pytest.approx(wanted)


@pytest.fixture(scope="module")
def tested(blobs):
    """(learner, params, sampler, what was predicted and asked, task by task)."""
    sampler = jm.tasks.episodes(blobs, 3, shots=1, queries=4)
    learner = jm.protonet(jm.models.mlp(6, 4, (8,)), ways=3)
    params = learner.init(jax.random.key(0))
    seen = []
    for i in range(40):
        key = jax.random.fold_in(jax.random.key(1), i)
        task = sampler.sample(key)
        logits = learner.predict(learner.adapt(params, task.support), task.query.x)
        classes = np.asarray(sampler.plan(jax.random.clone(key)).classes)
        seen.append((np.asarray(logits), np.asarray(task.query.y), classes))
    return learner, params, sampler, seen


def test_evaluate_reports_more(tested):
    learner, params, sampler, seen = tested
    how = {"num_tasks": 40, "key": jax.random.key(1)}
    report = jm.evaluate(
        learner, params, sampler, metrics=jm.metrics.classification, **how
    )
    assert {"accuracy", "loss", "f1", "precision", "recall"} < report.mean.keys()
    recall = [(logits.argmax(1) == y).mean() for logits, y, _ in seen]
    np.testing.assert_allclose(report.per_task["recall"], recall, atol=1e-6)
    np.testing.assert_allclose(
        -report.per_task["log_likelihood"], report.per_task["loss"], rtol=1e-4
    )


def test_calibration_is_that_of_a_loop(tested):
    learner, params, sampler, seen = tested
    found = jm.metrics.calibration(
        learner, params, sampler, key=jax.random.key(1), num_tasks=40, bins=5
    )
    chances = np.asarray(jax.nn.softmax(np.concatenate([a for a, *_ in seen])))
    right = chances.argmax(1) == np.concatenate([y for _, y, _ in seen])
    sure = chances.max(1)
    error = 0.0
    for b in range(5):
        inside = (np.minimum((sure * 5).astype(int), 4)) == b
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert found.ece == pytest.approx(error, abs=1e-5) and 0 < found.ci95 < 0.2
    assert found.share.sum() == pytest.approx(1)


def test_each_class_has_its_scores(tested, blobs):
    learner, params, sampler, seen = tested
    found = jm.metrics.by_class(
        learner, params, sampler, blobs.classes, key=jax.random.key(1), num_tasks=40
    )
    confusion = np.zeros((20, 20))
    for logits, y, classes in seen:
        np.add.at(confusion, (classes[y], classes[logits.argmax(1)]), 1)
    np.testing.assert_array_equal(found.confusion, confusion)
    right, wanted = np.diag(confusion), confusion.sum(1)
    np.testing.assert_allclose(found.recall, right / wanted)
    assert found.queries.sum() == 40 * 3 * 4
    few = found.hardest(3)
    assert list(few.recall) == sorted(found.recall)[:3] and few.confusion.shape == (
        3,
        3,
    )
    assert few.names[0] == found.names[int(found.recall.argmin())]
    assert found.recall.mean() < 1
    with pytest.raises(ValueError, match="expected one with plan"):
        jm.metrics.by_class(
            learner, params, jm.tasks.sinusoid(), ("a",), key=jax.random.key(0)
        )


def test_another_turn_of_a_class_is_no_right_answer():
    """Of images whose turns are classes of their own, recall is the accuracy."""
    images = jm.data.from_arrays(RANDOM.random((12, 4, 4, 1)), np.repeat([0, 1, 2], 4))
    sampler = jm.tasks.episodes(images, 6, shots=1, queries=2, rotations=True)
    learner, how = jm.nearest_neighbour(6), {"key": jax.random.key(0), "num_tasks": 20}
    found = jm.metrics.by_class(learner, (), sampler, images.classes, **how)
    accuracy = jm.evaluate(learner, (), sampler, **how).mean["accuracy"]
    mean = (found.recall * found.queries).sum() / found.queries.sum()
    assert mean == pytest.approx(accuracy, abs=1e-6) and mean < 0.5


@pytest.mark.parametrize("same_tasks", [False, True])
def test_pooled_intervals_hold_the_truth(same_tasks):
    """In 95 of 100 repetitions, whatever seeds and tasks add: k seeds and n tasks with
    normal effects of each, and of both together."""
    random, k, n, inside = np.random.default_rng(1), 5, 30, 0
    for _ in range(600):
        of_seed = random.normal(0, 0.5, (k, 1))
        of_task = random.normal(0, 1, (1, n) if same_tasks else (k, n))
        values = of_seed + of_task + random.normal(0, 0.5, (k, n))
        report = jm.pooled(
            [jm.training.summarize({"loss": row}) for row in values],
            same_tasks=same_tasks,
        )
        inside += abs(report.mean["loss"]) < report.ci95["loss"]
    assert 0.925 < inside / 600 < 0.99


def test_reports_that_can_not_be_pooled():
    one, other, more = (
        jm.training.summarize({name: np.arange(n)})
        for name, n in (("loss", 3), ("mse", 3), ("loss", 4))
    )
    with pytest.raises(ValueError, match="the same metrics"):
        jm.pooled([one, other])
    with pytest.raises(ValueError, match="with the same tasks, expected as many"):
        jm.pooled([one, more], same_tasks=True)
    with pytest.raises(ValueError, match="reports: expected a whole number >= 2"):
        jm.pooled([one])
