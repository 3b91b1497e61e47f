"""SimpleShot: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, close, distances, outputs, unit

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("transform", ["UN", "L2N", "CL2N"])
def test_simpleshot_transforms_then_compares(transform):
    learner = jm.simpleshot(
        IDENTITY, classes=4, ways=WAYS, features=4, transform=transform
    )
    m = np.array([0.3, -0.2, 0.1, 0.5])
    params = learner.init(jax.random.key(0))._replace(m=jnp.asarray(m))
    change = {"UN": lambda z: z, "L2N": unit, "CL2N": lambda z: unit(z - m)}[transform]
    x, y = change(np.asarray(TASK.support.x)), np.asarray(TASK.support.y)
    c = np.stack([x[y == k].mean(axis=0) for k in range(WAYS)])
    expected = -distances(change(np.asarray(TASK.query.x)), c)
    close(outputs(learner, params, TASK), expected)
