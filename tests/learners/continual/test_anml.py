"""ANML against a loop in Python over its equations."""

import jax
import jax.numpy as jnp
import pytest
from problems import double
from stream_task import (
    ALPHA,
    ENCODER,
    FEATURES,
    GATE,
    HEAD,
    TASK,
    WAYS,
    answer,
    asked,
    both,
    by_hand,
    close,
)

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")
SIZES = {"ways": WAYS, "features": FEATURES, "inner_lr": ALPHA}
ADJOINTS = {
    "second order": (jm.MixedMode(), lambda g: g),
    "first order": (jm.FirstOrder(), jax.lax.stop_gradient),
}


def written_out(params, constant, adapt_encoder):
    """The loss of the query set."""

    def outputs(w, x):
        gates = 1 / (1 + jnp.exp(-jnp.tanh(x @ params.gate["w"])))
        encoder = w["encoder"] if adapt_encoder else params.encoder
        return answer(w["head"], jnp.tanh(x @ encoder["w"]) * gates)

    w = {"head": params.head} | ({"encoder": params.encoder} if adapt_encoder else {})
    return asked(outputs, by_hand(outputs, w, constant)[-1])


@pytest.mark.parametrize(
    ("order", "adapt_encoder"),
    [("second order", True), ("first order", True), ("second order", False)],
)
def test_anml_is_gated_steps_one_example_after_the_other(order, adapt_encoder):
    adjoint, constant = ADJOINTS[order]
    learner = jm.anml(
        ENCODER, GATE, HEAD, adjoint=adjoint, adapt_encoder=adapt_encoder, **SIZES
    )
    params = double(learner.init(jax.random.key(0)))
    wanted = both(lambda p: written_out(p, constant, adapt_encoder), params)
    close(both(lambda p: learner.loss(p, TASK)[0], params), wanted)


def test_a_gate_of_another_size_gets_a_sentence():
    learner = jm.anml(ENCODER, HEAD, HEAD, **SIZES)
    params = double(learner.init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"gate: expected outputs \[examples, 4\]"):
        gate = jm.models.mlp(2, 3, ())
        learner = jm.anml(ENCODER, gate, HEAD, **SIZES)
        learner.loss(params._replace(gate=gate.init(jax.random.key(0))), TASK)
