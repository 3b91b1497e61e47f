"""DANN: its steps by two gradients, and lambda."""

import numpy as np
import pytest
from two_domains import (
    BY_SGD,
    ENCODER,
    agree,
    cross_entropy,
    network,
    play,
    ramp,
    slices,
    small,
    start,
    task,
    tell,
)

import jaxmeta as jm
from jaxmeta.learners.adaptation import domains, players

pytestmark = pytest.mark.usefixtures("x64")
D = small()


def test_its_steps_are_those_of_equations_13_to_15():
    x_s, y_s, x_t = slices(task().support)
    learner = jm.dann(ENCODER, D, weight=0.7, **BY_SGD)
    params = start(learner)

    def l_d(w):
        source, target = (network(w["network"], x)[0] for x in (x_s, x_t))
        return tell(*(D.apply(w["discriminator"], z) for z in (source, target)))

    def own(w, step):
        l_y = cross_entropy(network(w["network"], x_s)[1], y_s)
        return l_y - 0.7 * ramp(step) * l_d(w)

    objectives = {"network": own, "discriminator": lambda w, step: l_d(w)}
    expected = play(params, objectives)
    agree(learner.adapt(params, task().support).network, expected["network"])


def test_without_an_adversary_it_is_training_on_the_source():
    x_s, y_s, _ = slices(task().support)
    learner = jm.dann(ENCODER, D, weight=0.0, **BY_SGD)
    params = start(learner)
    l_y = lambda w, step: cross_entropy(network(w["network"], x_s)[1], y_s)
    found = learner.adapt(params, task().support).network
    agree(found, play(params, {"network": l_y})["network"])


def test_lambda_grows_from_0_to_1():
    p = np.array([0.0, 0.1, 0.5, 1.0])
    found = players.ramp(p)
    np.testing.assert_allclose(found, 2 / (1 + np.exp(-10 * p)) - 1, rtol=1e-12)
    np.testing.assert_allclose(
        found, [0, 0.46211716, 0.98661430, 0.99990920], atol=1e-8
    )
    progress, rows = players.steps_of(
        task().support, None, players.Training(0.1, 4, None, True, None, None)
    )
    assert rows is None and np.allclose(progress, [0, 0.25, 0.5, 0.75])


def test_the_domains_count_the_same_whatever_their_sizes():
    seen = domains.Seen(
        *(None, None, None, np.array([1.0, 0, 0]), np.array([0, 1.0, 1]), None, None)
    )
    logits = np.array([[0.3], [-1.0], [2.0]])
    table = jm.models.from_functions(lambda key: (), lambda params, z: z)
    found = domains.domain_loss(table, (), logits, seen)
    log_loss = lambda logit, sign: np.log1p(np.exp(-sign * logit))
    target = (log_loss(-1.0, 1) + log_loss(2.0, 1)) / 2
    np.testing.assert_allclose(found, (log_loss(0.3, -1) + target) / 2, rtol=1e-12)
