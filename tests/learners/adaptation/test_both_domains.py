"""What learners of two domains share: their examples, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from two_domains import BY_SGD, ENCODER, FEATURES, WAYS, agree, small, start, task

import jaxmeta as jm
from jaxmeta.learners.adaptation import players

pytestmark = pytest.mark.usefixtures("x64")
SUPPORT = task().support
MAKE = {
    "dann": lambda **how: jm.dann(ENCODER, small(), **BY_SGD | how),
    "cdan": lambda **how: jm.cdan(ENCODER, small(WAYS * FEATURES), **BY_SGD | how),
    "adda": lambda **how: jm.adda(
        ENCODER, small(), adversarial_steps=2, **BY_SGD | how
    ),
    "mcd": lambda **how: jm.mcd(ENCODER, **BY_SGD | how),
    "deep_coral": lambda **how: jm.deep_coral(ENCODER, **BY_SGD | how),
    "adversarial_autoencoder": lambda **how: jm.adversarial_autoencoder(
        ENCODER, small(FEATURES, 2), small(), **BY_SGD | how
    ),
}
WEIGHTED = [name for name in MAKE if name != "adda"]
each = pytest.mark.parametrize("name", MAKE)


def by_batch():
    """An encoder that takes from each example the mean of those that count."""

    def apply(params, x, mask=None):
        counts = jnp.ones(len(x)) if mask is None else (mask > 0).astype(x.dtype)
        mean = counts @ x / jnp.maximum(jnp.sum(counts), 1)
        return ENCODER.apply(params, x - mean[None, :])

    return jm.Model(ENCODER.init, apply, uses_mask=True)


def adapted(learner, support=SUPPORT, key=None):
    return learner.adapt(start(learner), support, key).network


def differ(a, b):
    pairs = zip(*map(jax.tree.leaves, (a, b)), strict=True)
    return max(float(jnp.max(jnp.abs(u - v))) for u, v in pairs) > 1e-6


def test_a_minibatch_is_half_of_the_source_half_of_the_target():
    how = players.Training(0.1, 50, 4, True, optax.sgd, jm.MixedMode())
    n = len(SUPPORT.y)
    mask = np.ones(n)
    left = np.flatnonzero(SUPPORT.y >= 0)[0]
    mask[left] = 0
    support = SUPPORT._replace(mask=mask)
    progress, rows = players.steps_of(support, jax.random.key(0), how)
    assert rows.shape == (50, 8) and progress.shape == (50,)
    labels = SUPPORT.y[np.asarray(rows)]
    assert (labels[:, :4] >= 0).all() and (labels[:, 4:] == -1).all()
    assert set(np.ravel(rows).tolist()) == set(range(n)) - {left}


@pytest.mark.parametrize("name", ["dann", "adda", "mcd"])
def test_a_key_draws_the_minibatches(name):
    learner = MAKE[name](batch_size=3)
    one, same, other = (
        adapted(learner, key=jax.random.key(seed)) for seed in (0, 0, 1)
    )
    agree(one, same, tolerance=0)
    assert differ(one, other)
    agree(
        adapted(learner), adapted(learner), tolerance=0
    )  # without one, always the same


def test_a_network_that_normalises_sees_domains_together_or_apart():
    make = lambda encoder, together: jm.dann(
        encoder, small(), together=together, **BY_SGD
    )
    plain = [adapted(make(ENCODER, together)) for together in (True, False)]
    agree(*plain, tolerance=1e-12)
    normal = [adapted(make(by_batch(), together)) for together in (True, False)]
    assert differ(*normal)


def test_apart_is_each_by_its_own_statistics():
    """Inputs centred by hand, each domain by its mean, and a network that does not."""
    counts = SUPPORT.y >= 0
    centre = lambda x, rows: x - x[rows].mean(axis=0)
    x = np.where(counts[:, None], centre(SUPPORT.x, counts), centre(SUPPORT.x, ~counts))
    apart = adapted(jm.dann(by_batch(), small(), together=False, **BY_SGD))
    expected = adapted(MAKE["dann"](), SUPPORT._replace(x=x))
    agree(apart, expected)


@each
def test_no_target_is_refused(name):
    learner = MAKE[name]()
    labelled = SUPPORT._replace(y=np.abs(SUPPORT.y))
    with pytest.raises(ValueError, match="no example is unlabelled .* target domain"):
        learner.adapt(start(learner), labelled)


@each
def test_one_class_of_labels_is_refused(name):
    """Who numbers the domains 0 and -1 has labelled no class."""
    learner = MAKE[name]()
    numbered = SUPPORT._replace(y=np.where(SUPPORT.y >= 0, 1, -1))
    with pytest.raises(ValueError, match="every labelled example is of class 1"):
        learner.adapt(start(learner), numbered)


def test_a_class_that_the_source_has_not_is_never_predicted():
    learner = MAKE["mcd"]()
    support = SUPPORT._replace(mask=np.asarray(SUPPORT.y != 2, float))
    found = learner.predict(learner.adapt(start(learner), support), task().query.x)
    assert np.isneginf(found[:, 2]).all() and np.isfinite(found[:, :2]).all()


@each
def test_arguments_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match="batch_size: expected"):
        MAKE[name](batch_size=0)
    with pytest.raises(ValueError, match="ways: expected"):
        MAKE[name](ways=1)
    learner = MAKE[name](features=FEATURES + 1)
    with pytest.raises(ValueError, match=f"give the learner features={FEATURES}"):
        learner.adapt(learner.init(jax.random.key(0)), SUPPORT)
    if name in WEIGHTED:
        with pytest.raises(ValueError, match="weight: expected"):
            MAKE[name](weight=-1.0)


@pytest.mark.parametrize("name", ["dann", "cdan", "adda", "adversarial_autoencoder"])
def test_a_discriminator_of_another_size_is_refused(name):
    inputs = WAYS * FEATURES if name == "cdan" else FEATURES
    between = (small(FEATURES, 2),) if name == "adversarial_autoencoder" else ()
    learner = getattr(jm, name)(ENCODER, *between, small(inputs, 2), **BY_SGD)
    with pytest.raises(ValueError, match="discriminator: expected one logit"):
        learner.adapt(start(learner), SUPPORT)


def test_a_discriminator_of_the_wrong_inputs_is_refused():
    """Who gives cdan what dann takes."""
    learner = jm.cdan(ENCODER, small(FEATURES), **BY_SGD)
    with pytest.raises(ValueError, match=f"build it with inputs={WAYS * FEATURES}"):
        learner.adapt(start(learner), SUPPORT)
