"""Matching: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, close, outputs, start, unit
from scipy.special import expit, softmax

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_matching_is_attention_over_labels():
    learner = jm.matching(IDENTITY, ways=WAYS, scale=3.0)
    params = learner.init(jax.random.key(0))
    x, y = map(np.asarray, TASK.support[:2])
    a = softmax(3 * unit(np.asarray(TASK.query.x)) @ unit(x).T, axis=1)  # eq. 1
    close(np.exp(outputs(learner, params, TASK)), a @ np.eye(WAYS)[y])


def test_full_context_embeddings_are_the_loops_of_the_paper():
    learner = jm.matching(
        IDENTITY, ways=WAYS, features=4, full_context=True, processing_steps=3
    )
    params = start(learner)
    x, y = map(np.asarray, TASK.support[:2])

    def cell(weights, h, c, row):
        i, f, o, g = np.split(np.concatenate([row, h]) @ weights["w"] + weights["b"], 4)
        c = expit(f) * c + expit(i) * np.tanh(g)
        return expit(o) * np.tanh(c), c

    def read(weights, rows):
        h = c = np.zeros(4)
        states = []
        for row in rows:
            h, c = cell(weights, h, c, row)
            states.append(h)
        return np.stack(states)

    context = jax.tree.map(np.asarray, params.context)
    g = read(context["forward"], x) + read(context["backward"], x[::-1])[::-1] + x
    expected = []
    for z in np.asarray(TASK.query.x):
        h, c = z, np.zeros(4)
        for _ in range(3):
            r = softmax(g @ h) @ g
            new, c = cell(context["attend"], h, c, np.concatenate([z, r]))
            h = new + z
        a = softmax(10 * unit(h) @ unit(g).T)
        expected.append(a @ np.eye(WAYS)[y])
    close(np.exp(outputs(learner, params, TASK)), expected)
