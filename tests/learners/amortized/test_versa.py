"""VERSA: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, Q, close, loss, means
from scipy.special import softmax

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_versa_averages_probabilities_over_classifiers():
    learner = jm.versa(IDENTITY, ways=WAYS, features=4, samples=3)
    params = learner.init(jax.random.key(0))
    adapt = jax.jit(learner.adapt)
    adapted = jax.device_get(adapt(params, TASK.support, jax.random.key(1)))
    assert adapted.psi.shape == (3, WAYS, 5)
    columns = np.concatenate([Q, np.ones((len(Q), 1))], axis=1)
    p = np.mean(
        [softmax(columns @ np.asarray(w).T, axis=1) for w in adapted.psi], axis=0
    )
    log_p = jax.jit(learner.predict)(adapted, TASK.query.x)
    close(np.exp(log_p), p, 1e-6)
    # eq. 5, and the mean of q without a key
    value = -np.log(p)[np.arange(len(Q)), np.asarray(TASK.query.y)].mean()
    close(loss(learner, params, TASK, jax.random.key(1)), value, 1e-6)
    mean = np.asarray(adapt(params, TASK.support).psi)
    network = jm.models.mlp(4, 10, (4, 4), activation=jax.nn.elu)
    psi = np.asarray(jax.jit(network.apply)(params.inference, means(TASK)))
    close(mean[0], psi[:, :5], 1e-6)
