"""Relation: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_points import TASK, WAYS, close, loss, outputs
from scipy.special import expit

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_relation_scores_every_pair_and_sums_shots():
    shape = lambda params, x: jnp.reshape(x, (len(x), 2, 2))
    maps = jm.models.from_functions(lambda key: (), shape)
    module = jm.models.mlp((2, 4), 1, (3,))
    learner = jm.relation(maps, module, ways=WAYS)
    params = learner.init(jax.random.key(0))
    x, y = map(np.asarray, TASK.support[:2])
    expected, judge = np.zeros((len(TASK.query.x), WAYS)), jax.jit(module.apply)
    for i, q in enumerate(np.asarray(TASK.query.x).reshape(-1, 2, 2)):
        for k in range(WAYS):
            c = x[y == k].sum(axis=0).reshape(2, 2)
            pair = np.concatenate([c, q], axis=-1)[None]
            expected[i, k] = np.asarray(judge(params.relation, pair))[0, 0]
    close(outputs(learner, params, TASK), expected)
    error = np.square(expit(expected) - np.eye(WAYS)[np.asarray(TASK.query.y)]).mean()
    close(loss(learner, params, TASK), error)  # eq. 2
