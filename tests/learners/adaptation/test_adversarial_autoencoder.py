"""The domain-adversarial autoencoder: DANN at one end, DRCN at the other."""

import jax.numpy as jnp
import pytest
from two_domains import (
    BY_SGD,
    ENCODER,
    FEATURES,
    HOW,
    agree,
    cross_entropy,
    network,
    play,
    slices,
    small,
    start,
    task,
)

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")
D, A = small(FEATURES, 2), small()


@pytest.mark.parametrize(
    "how", [BY_SGD, {**HOW, "inner_lr": 0.01}], ids=["sgd", "adam"]
)
def test_without_reconstruction_it_is_dann(how):
    learner = jm.adversarial_autoencoder(ENCODER, D, A, reconstruction=0.0, **how)
    params = start(learner)
    dann = jm.dann(ENCODER, A, **how)
    without = {name: part for name, part in params.items() if name != "decoder"}
    found, expected = (
        made.adapt(p, task().support)
        for made, p in ((learner, params), (dann, without))
    )
    agree(found, expected, tolerance=1e-12)


@pytest.mark.parametrize("reconstruct", ["target", "both"])
def test_without_an_adversary_it_is_drcn(reconstruct):
    """lambda L_c + (1 - lambda) L_r, a rate lambda times as large."""
    x_s, y_s, x_t = slices(task().support)
    lam = 0.7
    made = jnp.concatenate([x_s, x_t]) if reconstruct == "both" else x_t
    learner = jm.adversarial_autoencoder(
        *(ENCODER, D, A),
        weight=0.0,
        reconstruction=(1 - lam) / lam,
        reconstruct=reconstruct,
        **{**BY_SGD, "inner_lr": 0.2 * lam},
    )
    params = start(learner)

    def drcn(w, step):
        l_c = cross_entropy(network(w["network"], x_s)[1], y_s)
        again = D.apply(w["decoder"], ENCODER.apply(w["network"].encoder, made))
        return lam * l_c + (1 - lam) * jnp.mean(jnp.square(again - made))

    expected = play(params, {"network": drcn, "decoder": drcn}, rate=0.2)["network"]
    agree(learner.adapt(params, task().support).network, expected)


def test_a_decoder_of_another_size_is_refused():
    learner = jm.adversarial_autoencoder(ENCODER, small(FEATURES, 3), A, **BY_SGD)
    with pytest.raises(ValueError, match="decoder: expected outputs .examples, 2."):
        learner.adapt(start(learner), task().support)
