"""MetaOptNet: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, Q, X, Y, close, crammer_singer, outputs

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_metaoptnet_is_a_machine_on_features():
    learner = jm.metaoptnet(IDENTITY, ways=WAYS, penalty=0.5)
    params = learner.init(jax.random.key(0))._replace(gamma=jnp.array(2.0))
    wide = np.concatenate([X, np.eye(len(X))], axis=1)
    theirs = crammer_singer(wide, Y, 0.5)[:, : X.shape[1]]
    close(outputs(learner, params, TASK), 2 * Q @ theirs.T, 1e-6)
    learner = jm.metaoptnet(IDENTITY, ways=WAYS, head="ridge", penalty=0.5)
    w = np.linalg.solve(X.T @ X + 0.5 * np.eye(4), X.T @ np.eye(WAYS)[Y])
    close(outputs(learner, params, TASK), 2 * Q @ w)
