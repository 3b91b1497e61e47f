"""Gradient learners: wrong arguments get a sentence."""

import jax.numpy as jnp
import pytest
from linear_task import MODEL

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            lambda: jm.boil(MODEL),
            "head: the model has no layer 'head' .* one of .*kernel",
        ),
        (lambda: jm.cavia(MODEL), "context: the model has no layer 'context'"),
        (
            lambda: jm.imaml(MODEL, penalty=0.0),
            "penalty: expected a number > 0, got 0.0",
        ),
        (lambda: jm.proximal(MODEL, penalty=-1.0), "penalty: .* got -1.0"),
        (lambda: jm.imaml(MODEL, inner_steps=0), "inner_steps: .* >= 1, got 0"),
        (lambda: jm.reptile(MODEL, inner_steps=0), "inner_steps: .* >= 1, got 0"),
        (lambda: jm.reptile(MODEL, inner_batch=0), "inner_batch: expected a whole"),
        (
            lambda: jm.bmaml(MODEL, particles=0),
            "particles: expected a whole number >= 1, got 0",
        ),
        (lambda: jm.bootstrapped(MODEL, target_steps=0), "target_steps: .* got 0"),
        (
            lambda: jm.meta_sgd(MODEL, inner_lr=(0.1, 0.01)),
            "inner_lr: expected .low, high",
        ),
        (
            lambda: jm.learned_optimizer(MODEL, last_weight=0.0),
            "last_weight: expected a number > 0",
        ),
        (
            lambda: jm.meta_sgd(MODEL, inner_lr=-0.1),
            "inner_lr: expected a number >= 0",
        ),
        (lambda: jm.lstm_meta_learner(MODEL, hidden=0), "hidden: expected a whole"),
        (lambda: jm.lstm_meta_learner(MODEL, inner_lr=1.0), r"inner_lr: .*\(0, 1\)"),
        (lambda: jm.learned_optimizer(MODEL, hidden=0), "hidden: expected a whole"),
        (
            lambda: jm.leo(MODEL, latent=0),
            "latent: expected a whole number >= 1, got 0",
        ),
        (lambda: jm.leo(MODEL, ways=1), "ways: expected a whole number >= 2, got 1"),
        (
            lambda: jm.protomaml(MODEL, ways=1),
            "ways: expected a whole number >= 2, got 1",
        ),
        (
            lambda: jm.maml_plus_plus(jm.Model(lambda k: jnp.ones(3), MODEL.apply)),
            "model: expected parameters as a dict of layers",
        ),
    ],
)
def test_wrong_arguments_get_a_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        wrong()
