"""BOIL: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import pytest
from linear_task import OPTIONS, RANDOM, close, gradient, numeric, query_loss, slope

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_boil():
    body, head = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(3, 2))
    model = jm.Model(
        lambda key: {"body": jnp.asarray(body), "head": jnp.asarray(head)},
        lambda p, x: x @ p["body"] @ p["head"],
    )

    def loss(body, head):
        for _ in range(3):
            body = body - 0.1 * slope(body @ head) @ head.T
        return query_loss(body @ head)

    learner = jm.boil(model, inner_lr=0.1, **OPTIONS)
    found = gradient(learner, learner.init(jax.random.key(0)))
    close(found["body"], numeric(lambda b: loss(b, head), body))
    close(found["head"], numeric(lambda h: loss(body, h), head))
