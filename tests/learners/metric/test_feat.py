"""FEAT: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import (
    IDENTITY,
    TASK,
    WAYS,
    close,
    distances,
    loss,
    means,
    objective,
    outputs,
    start,
)
from problems import naive_attention
from scipy.special import log_softmax

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_feat_lets_prototypes_attend():
    learner = jm.feat(IDENTITY, ways=WAYS, features=4, temperature=2.0, balance=0.5)
    params = start(learner)

    def transform(z, see):
        layer = jax.tree.map(np.asarray, params.transformer["attention"])
        dense = lambda name, a: a @ layer[name]["kernel"] + layer[name]["bias"]
        read = naive_attention(*(dense(n, z) for n in ("query", "key", "value")), see)
        y = z + dense("out", read)
        y = y - y.mean(axis=1, keepdims=True)
        return y / np.sqrt(y.var(axis=1, keepdims=True) + 1e-6)

    c = transform(means(TASK), np.ones((WAYS, WAYS), bool))
    q, labels = map(np.asarray, TASK.query[:2])
    logits = -distances(q, c) / 2
    close(outputs(learner, params, TASK), logits)
    z = np.concatenate([np.asarray(TASK.support.x), q])
    y = np.concatenate([np.asarray(TASK.support.y), labels])
    each = transform(z, y[:, None] == y[None])
    centres = np.stack([each[y == k].mean(axis=0) for k in range(WAYS)])
    cross = lambda s, y: -log_softmax(s, axis=1)[np.arange(len(y)), y].mean()
    expected = cross(logits, labels) + 0.5 * cross(-distances(z, centres) / 2, y)
    close(objective(learner, params, TASK)[0], expected)
    close(loss(learner, params, TASK), cross(logits, labels))
