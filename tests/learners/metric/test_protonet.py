"""Protonet: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, close, means, outputs, unit

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_cosine_prototypes():
    learner = jm.protonet(IDENTITY, ways=WAYS, distance="cosine", scale=7.0)
    close(
        outputs(learner, (), TASK),
        7 * unit(np.asarray(TASK.query.x)) @ unit(means(TASK)).T,
    )
    learner = jm.meta_baseline(IDENTITY, ways=WAYS, temperature=7.0)
    params = learner.init(jax.random.key(0))
    close(
        outputs(learner, params, TASK),
        7 * unit(np.asarray(TASK.query.x)) @ unit(means(TASK)).T,
        1e-7,
    )
