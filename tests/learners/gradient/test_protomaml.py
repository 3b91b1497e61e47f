"""Proto-MAML: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import outputs
from problems import one_task
from scipy.special import softmax

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_protomaml_without_steps_is_a_prototypical_network(blobs):
    encoder = jm.models.mlp(6, 8, (16,))
    task = one_task(jm.tasks.episodes(blobs, 3, 2, 4), jax.random.key(0))
    params = encoder.init(jax.random.key(1))
    probabilities = [
        softmax(outputs(learner, params, task), axis=-1)
        for learner in (
            jm.protomaml(encoder, ways=3, inner_steps=0),
            jm.protonet(encoder, ways=3),
        )
    ]
    np.testing.assert_allclose(*probabilities, rtol=1e-4, atol=1e-6)
