"""Label propagation: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, close, distances, objective, start
from scipy.special import log_softmax
from sklearn.semi_supervised import LabelSpreading

import jaxmeta as jm
from jaxmeta.learners.transductive.label_propagation import propagate

pytestmark = pytest.mark.usefixtures("x64")


def test_label_propagation_is_scikit_learns_label_spreading():
    random = np.random.default_rng(0)
    x = random.normal(size=(12, 3))
    w = np.exp(-distances(x, x) / 2) * (1 - np.eye(12))
    y = np.array([0, 1, 2, *[-1] * 9])
    theirs = LabelSpreading(
        kernel=lambda a, b: w + np.eye(12), alpha=0.8, tol=1e-14, max_iter=10_000
    ).fit(x, y)
    known = np.eye(3)[np.maximum(y, 0)] * (y >= 0)[:, None]
    ours = np.asarray(jax.jit(propagate)(w, known, 0.8))
    ours = ours / ours.sum(axis=1, keepdims=True)
    close(ours, theirs.label_distributions_, 1e-6)


def test_label_propagation_is_trained_on_support_and_queries_together():
    """In numpy, from the graph on: an unlabelled and a padded example are not judged."""
    support, query = jax.device_get(TASK)
    random = np.random.default_rng(0)
    more = random.normal(size=(2, 4))
    support = jm.Batch(
        np.concatenate([support.x, more]),
        np.concatenate([support.y, np.array([-1, 0])]),
        np.array([1.0] * 7 + [0.0]),
    )
    task = jm.Task(support, query)
    learner = jm.label_propagation(
        IDENTITY, ways=WAYS, features=4, alpha=0.8, neighbours_of=30
    )
    params = start(learner)
    x = np.concatenate([support.x[:7], query.x])
    graph = jm.models.mlp(4, 1, (8,))
    x = x * np.exp(-np.asarray(jax.jit(graph.apply)(params.graph, x)))
    w = np.exp(-distances(x, x) / 8) * (1 - np.eye(len(x)))
    root = np.diag(w.sum(axis=1) ** -0.5)
    y = np.zeros((len(x), WAYS))
    y[np.arange(6), np.asarray(support.y[:6])] = 1
    f = np.linalg.solve(np.eye(len(x)) - 0.8 * root @ w @ root, y)
    labels = np.concatenate([support.y, query.y])[np.r_[:7, 8 : len(x) + 1]]
    each = -log_softmax(f, axis=1)[np.arange(len(x)), labels]
    judged = np.r_[:6, 7 : len(x)]
    trained, metrics = objective(learner, params, task)
    close(trained, each[judged].mean())
    reported, said = jax.jit(learner.loss)(params, task)
    close(reported, each[7:].mean())
    close(metrics["loss"], reported)
    close(metrics["accuracy"], said["accuracy"])
