"""SNAIL: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, Q, X, Y, close, outputs, start
from scipy.special import expit, softmax

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_snail_is_a_causal_network_over_the_whole_sequence():
    """What it shares between queries is what each sequence, read alone, gives."""
    learner = jm.snail(IDENTITY, ways=WAYS, features=4, length=6, scale=0.05)
    params = start(learner)
    p = jax.tree.map(np.asarray, params)
    dense = lambda layer, a: a @ layer["w"] + layer["b"]

    def alone(q):
        labels = np.concatenate([np.eye(WAYS)[Y], np.zeros((1, WAYS))])
        h = np.concatenate([np.concatenate([X, q[None]]), labels], axis=1)
        for layer in p.layers:
            if isinstance(layer, dict):
                queries, keys, values = (
                    dense(layer[n], h) for n in ("query", "key", "value")
                )
                scores = queries @ keys.T / keys.shape[1] ** 0.5
                scores = np.where(np.tri(len(h)) > 0, scores, -np.inf)
                # the support's rows see the past and themselves, as the query's do
                read = softmax(scores, axis=1) @ values
                h = np.concatenate([h, read], axis=1)
                continue
            for block, dilation in zip(layer, (2, 4, 8), strict=True):
                past = np.concatenate([np.zeros((dilation, h.shape[1])), h])[: len(h)]
                xf, xg = np.split(dense(block, np.concatenate([past, h], 1)), 2, axis=1)
                h = np.concatenate([h, np.tanh(xf) * expit(xg)], axis=1)
        return dense(p.head, h[-1:])[0]

    expected = [alone(q) for q in Q]
    close(outputs(learner, params, TASK), expected, 1e-9)
