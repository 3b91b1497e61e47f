"""OML against a loop in Python over its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import double
from stream_task import (
    ALPHA,
    ENCODER,
    FEATURES,
    HEAD,
    TASK,
    WAYS,
    X,
    Y,
    answer,
    asked,
    both,
    by_hand,
    close,
    without,
)

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")
SIZES = {"ways": WAYS, "features": FEATURES, "inner_lr": ALPHA}
ADJOINTS = {
    "second order": (jm.MixedMode(), lambda g: g),
    "first order": (jm.FirstOrder(), jax.lax.stop_gradient),
}


@pytest.mark.parametrize("order", ADJOINTS)
def test_oml_is_steps_of_the_head_one_example_after_the_other(order):
    adjoint, constant = ADJOINTS[order]
    learner = jm.oml(ENCODER, HEAD, adjoint=adjoint, reset="head", **SIZES)

    def loss(params):
        encode = lambda x: jnp.tanh(x @ params.encoder["w"])
        outputs = lambda head, x: answer(head, encode(x))
        head = without(params.head, Y)  # all classes are in the stream
        return asked(outputs, by_hand(outputs, head, constant)[-1])

    params = double(learner.init(jax.random.key(0)))
    close(both(lambda p: learner.loss(p, TASK)[0], params), both(loss, params))


def test_only_classes_of_the_stream_are_reset():
    learner = jm.oml(ENCODER, HEAD, inner_steps=0, reset="head", **SIZES)
    params = double(learner.init(jax.random.key(0)))
    some = jm.Batch(X[:2], Y[:2], np.array([1.0, 0.0]))
    close(learner.adapt(params, some), params._replace(head=without(params.head, [2])))


def test_the_order_of_a_stream_matters():
    learner = jm.oml(ENCODER, HEAD, **SIZES)
    params = double(learner.init(jax.random.key(0)))
    one, other = (learner.adapt(params, jm.Batch(X[o], Y[o])) for o in ([0, 2], [2, 0]))
    assert not np.allclose(one.head["head"]["kernel"], other.head["head"]["kernel"])


def normalising():
    """A network whose outputs depend on its batch."""
    apply = lambda p, x, mask: (x - jnp.mean(x, 0)[None]) @ p["w"] + x @ p["w"]
    return jm.Model(ENCODER.init, apply, uses_mask=True)


def test_a_network_that_normalises_sees_one_example_at_a_time():
    learner = jm.oml(normalising(), HEAD, **SIZES)
    params = double(learner.init(jax.random.key(0)))
    outputs = learner.predict(params, X)
    alone = np.concatenate(
        [learner.predict(params, X[i : i + 1]) for i in range(len(X))]
    )
    np.testing.assert_allclose(outputs, alone)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: jm.oml(ENCODER, HEAD, reset="tail"),
            "no layer 'tail'; expected one of head",
        ),
        (
            lambda: jm.oml(ENCODER, ENCODER, reset="w", **SIZES),
            r"reset: expected a layer",
        ),
        (lambda: jm.oml(ENCODER, HEAD, ways=4, features=4), r"outputs \[examples, 4\]"),
        (lambda: jm.oml(ENCODER, HEAD, adjoint=jm.Implicit()), "adjoint: oml learns"),
    ],
)
def test_networks_that_do_not_fit_get_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        learner = make()
        learner.loss(learner.init(jax.random.key(0)), TASK)
