"""MANN: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, Q, X, Y, close, loss, objective, outputs
from scipy.special import expit, softmax
from sklearn.metrics import log_loss

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("add_vectors", [False, True])
def test_mann_is_the_equations_of_the_paper(add_vectors):
    hidden, slots, size, reads = 3, 8, 2, 2
    learner = jm.mann(
        IDENTITY,
        ways=WAYS,
        features=4,
        hidden=hidden,
        slots=slots,
        size=size,
        reads=reads,
        add_vectors=add_vectors,
    )
    random = np.random.default_rng(0)  # biases that are not zero, too
    params = jax.tree.map(
        lambda p: jnp.asarray(p + 0.1 * random.normal(size=p.shape)),
        jax.device_get(learner.init(jax.random.key(0))),
    )
    p = jax.tree.map(np.asarray, params)
    dense = lambda layer, a: a @ layer["w"] + layer["b"]
    unit = lambda a: a / np.sqrt(np.square(a).sum(axis=-1, keepdims=True) + 1e-12)

    def step(state, x):
        h, c, memory, w_r, w_u, r, label = state
        row = dense(p.controller, np.concatenate([x, label, r, h]))
        i, f, o, g = np.split(row, 4)
        c = expit(f) * c + expit(i) * np.tanh(g)
        h = expit(o) * np.tanh(c)
        keys, adds = (
            np.tanh(dense(layer, h)).reshape(reads, size)
            for layer in (p.keys, p.adds or p.keys)
        )
        least = np.argsort(w_u, kind="stable")[:reads]  # eq. 6
        gate = expit(dense(p.alpha, h))[:, None]
        w_w = gate * w_r + (1 - gate) * np.eye(slots)[least]  # eq. 7
        memory = memory.copy()
        memory[least[0]] = 0
        memory = memory + w_w.T @ adds  # eq. 8
        w_r = softmax(unit(keys) @ unit(memory).T, axis=1)  # eqs. 2, 3
        w_u = 0.95 * w_u + w_r.sum(axis=0) + w_w.sum(axis=0)  # eq. 5
        r = (w_r @ memory).ravel()  # eq. 4
        logits = dense(p.head, np.concatenate([h, r]))
        return (h, c, memory, w_r, w_u, r, label), logits

    state = (
        *(np.zeros(hidden), np.zeros(hidden), np.full((slots, size), 1e-6)),
        *(np.zeros((reads, slots)), np.zeros(slots)),
        *(np.zeros(reads * size), np.zeros(WAYS)),
    )
    foretold = []
    for x, y in zip(X, Y, strict=True):
        after, logits = step(state, x)
        state = (*after[:-1], np.eye(WAYS)[y])
        foretold.append(logits)
    expected = [step(state, q)[1] for q in Q]  # each query is the next step
    close(outputs(learner, params, TASK), expected, 1e-9)
    value = log_loss(TASK.query.y, softmax(expected, axis=1))
    close(loss(learner, params, TASK), value, 1e-9)
    value += log_loss(Y, softmax(foretold, axis=1))
    close(objective(learner, params, TASK)[0], value, 1e-9)
