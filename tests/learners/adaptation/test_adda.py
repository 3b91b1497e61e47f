"""ADDA: the source, then an encoder that is to be taken for it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from two_domains import (
    BY_SGD,
    ENCODER,
    agree,
    cross_entropy,
    network,
    play,
    slices,
    small,
    start,
    task,
    tell,
)

import jaxmeta as jm
from jaxmeta.learners.adaptation.adda import adversarial
from jaxmeta.learners.adaptation.players import Training

pytestmark = pytest.mark.usefixtures("x64")
D = small()


def test_its_two_descents_by_hand():
    x_s, y_s, x_t = slices(task().support)
    how = {"adversarial_lr": 0.3, "adversarial_steps": 2}
    learner = jm.adda(ENCODER, D, **how, **BY_SGD)
    params = start(learner)
    l_cls = lambda w, step: cross_entropy(network(w["network"], x_s)[1], y_s)
    learned = play(params, {"network": l_cls})["network"]
    d_of = lambda w, z: D.apply(w["discriminator"], z)

    def l_adv_d(w, step):
        source = ENCODER.apply(learned.encoder, x_s)
        return tell(d_of(w, source), d_of(w, ENCODER.apply(w["target"], x_t)))

    def l_adv_m(w, step):  # labels inverted: the target said to be the source
        return jnp.mean(jax.nn.softplus(d_of(w, ENCODER.apply(w["target"], x_t))))

    w = {"target": learned.encoder, "discriminator": params["discriminator"]}
    objectives = {"target": l_adv_m, "discriminator": l_adv_d}
    expected = play(w, objectives, steps=2, rate=0.3)["target"]
    found = learner.adapt(params, task().support).network
    agree(found, learned._replace(encoder=expected))


@pytest.mark.parametrize("rate", [0.2, lambda step: 0.2 / (1 + step)])
def test_the_second_descent_is_as_long_and_a_fifth_as_fast_by_default(rate):
    """As in the authors' script, of numbers and of schedules."""
    training = Training(rate, 7, None, False, optax.sgd, jm.MixedMode())
    after = adversarial(training, None, None)
    assert after.inner_steps == 7
    found = [after.inner_lr(k) if callable(rate) else after.inner_lr for k in (0, 1)]
    np.testing.assert_allclose(found, [0.04, 0.02] if callable(rate) else 0.04)
    assert adversarial(training, 0.3, 2)[:2] == (0.3, 2)


def test_without_adversarial_steps_it_is_the_source_network():
    x_s, y_s, _ = slices(task().support)
    learner = jm.adda(ENCODER, D, adversarial_steps=0, **BY_SGD)
    params = start(learner)
    l_cls = lambda w, step: cross_entropy(network(w["network"], x_s)[1], y_s)
    found = learner.adapt(params, task().support).network
    agree(found, play(params, {"network": l_cls})["network"])
