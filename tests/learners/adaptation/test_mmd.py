"""MMD and JAN: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from few_points import IDENTITY, close, start
from scipy.special import softmax

import jaxmeta as jm
from jaxmeta import inner
from jaxmeta.learners.adaptation.discrepancies import gaussian, squared_mmd, typical

pytestmark = pytest.mark.usefixtures("x64")

unit_of = jax.jit(typical, static_argnums=2)
distance = jax.jit(squared_mmd, static_argnums=3)
SQUARED = 0.5, 2.0
RANDOM = np.random.default_rng(0)
Z = RANDOM.normal(size=(9, 3))
SOURCE = np.array([1.0, 0, 1, 0, 1, 0, 0, 1, 0])  # the last one is padding
TARGET = np.array([0.0, 1, 0, 1, 0, 1, 1, 0, 0])


def kernel(a, b, squared=SQUARED):
    return np.mean([np.exp(-np.sum((a - b) ** 2) / (2 * s)) for s in squared])


def by_hand(k, estimator, x, y):
    """Loops over pairs: k(a, b) of two examples, x and y lists of them."""
    self_too = estimator == "biased"

    def within(a):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(a))]
        kept = [(i, j) for i, j in pairs if i != j or self_too]
        return np.mean([k(a[i], a[j]) for i, j in kept])

    between = np.mean([k(a, b) for a in x for b in y])
    return within(x) + within(y) - 2 * between


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_squared_mmd_is_the_mean_over_pairs(estimator):
    k = jax.jit(lambda z: gaussian(z, SQUARED, 1.0))(Z)
    x, y = Z[SOURCE > 0], Z[TARGET > 0]
    found = distance(k, SOURCE, TARGET, estimator)
    close(found, by_hand(kernel, estimator, x, y), 1e-12)
    if estimator == "biased":
        assert found >= 0
        close(distance(k, SOURCE, SOURCE, "biased"), 0)


def test_units_are_mean_and_median_of_the_pairs():
    there = SOURCE + TARGET
    z = Z[there > 0]
    pairs = [np.sum((a - b) ** 2) for i, a in enumerate(z) for b in z[:i]]
    close(unit_of(Z, there, "mean"), np.mean(pairs))
    close(unit_of(Z, there, "median"), np.median(pairs))
    assert unit_of(Z, there, "none") == 1
    assert unit_of(np.zeros(Z.shape), np.ones(9), "median") == 1  # all in one place


def test_unbiased_is_zero_in_the_mean_and_the_closed_form_of_two_normals():
    """sqrt(s / (s + 2)) (2 - 2 exp(-m^2 / (2 (s + 2)))) between N(0, 1) and N(m, 1)."""
    s, m, n, draws = 0.7, 1.3, 40, 500
    source = jnp.asarray(np.repeat([1.0, 0.0], n))

    @jax.jit
    @jax.vmap
    def found(z):
        return squared_mmd(gaussian(z, (s,), 1.0), source, 1 - source)

    z = np.random.default_rng(1).normal(size=(draws, 2 * n, 1))
    apart = z + m * (1 - np.asarray(source))[None, :, None]
    expected = np.sqrt(s / (s + 2)) * (2 - 2 * np.exp(-(m**2) / (2 * (s + 2))))
    for given, value in ((z, 0.0), (apart, expected)):
        values = np.asarray(found(jnp.asarray(given)))
        error = values.std() / draws**0.5
        assert error < 0.005 and abs(values.mean() - value) < 3 * error


def objective_of(learner, monkeypatch):
    """What a constructor descends: (w, context, (support, ((progress, rows), turn)))."""
    seen = {}
    plain = inner.descent

    def spy(name, objective, **how):
        seen["objective"] = objective
        return plain(name, objective, **how)

    monkeypatch.setattr(inner, "descent", spy)
    learner()
    return seen["objective"]


def support():
    y = jnp.asarray(np.where(SOURCE > 0, [0, -1, 1, -1, 1, -1, -1, 0, -1], -1))
    return jm.Batch(jnp.asarray(Z), y, jnp.asarray(SOURCE + TARGET))


def value(monkeypatch, make, weight, progress=1.0, **how):
    """The objective at a network, less what it is without a discrepancy."""
    w = network()
    given = support(), ((jnp.asarray(progress), None), jnp.asarray(0))
    at = lambda weight: objective_of(
        lambda: make(IDENTITY, features=3, weight=weight, **how), monkeypatch
    )({"own": {"network": w}}, {}, given)
    return at(weight) - at(0.0)


def network():
    learner = jm.deep_coral(IDENTITY, features=3, inner_steps=0)
    return jax.tree.map(np.asarray, start(learner)["network"])


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_jan_is_the_product_of_kernels_and_mmd_of_one_layer(monkeypatch, estimator):
    how = {"squared_bandwidths": SQUARED, "unit": "none", "estimator": estimator}
    of_mmd = value(monkeypatch, jm.mmd, 0.5, **how)
    alone = value(monkeypatch, jm.jan, 0.5, predictions=None, ramped=False, **how)
    assert of_mmd == alone
    close(of_mmd, 0.5 * by_hand(kernel, estimator, Z[SOURCE > 0], Z[TARGET > 0]))

    w = network()
    both = np.concatenate([Z, softmax(Z @ w.w + w.b, axis=1)], axis=1)
    product = lambda a, b: kernel(a[:3], b[:3]) * kernel(a[3:], b[3:], (0.84,))
    expected = 0.5 * by_hand(product, estimator, both[SOURCE > 0], both[TARGET > 0])
    close(value(monkeypatch, jm.jan, 0.5, ramped=False, **how), expected)
    # lambda grows
    half = value(monkeypatch, jm.jan, 0.5, 0.05, **how)
    close(half, expected * (2 / (1 + np.exp(-0.5)) - 1))


def test_now_is_constant_in_a_step_and_differentiated_in_a_meta_gradient():
    """L = now w^2 / 2: a step of h goes to w - h w^2, whose slope is 1 - 2 h w."""
    product = lambda w, now, context, batch: now["own"] * w["own"] ** 2 / 2
    field = inner.Game({"own": product}, semi=True)
    assert field({"own": jnp.asarray(3.0)}, (), ()) == 13.5
    for adjoint in (jm.MixedMode(), jm.Reverse(), jm.Forward()):
        descend = inner.Descent(field, optax.sgd, 1, adjoint, 0.1)
        end = lambda w, descend=descend: descend({"own": w}, (), ())["own"]
        value, slope = jax.jit(jax.value_and_grad(end))(3.0)
        close(value, 3 - 0.9)
        close(slope, 1 - 0.6)


def test_a_large_weight_brings_the_domains_together():
    """A shift that the features can forget: the discrepancy falls to its tenth."""
    random = np.random.default_rng(2)
    x = random.normal(size=(40, 2))
    x[20:, 1] += 3  # what tells the domains apart; the classes differ along the first
    y = np.where(np.arange(40) < 20, x[:, 0] > 0, -1)
    linear = jm.models.mlp(2, 2, ())
    learner = jm.mmd(linear, features=2, weight=5.0, inner_steps=200, inner_lr=0.05)
    params = start(learner)
    adapted = learner.adapt(params, jm.Batch(jnp.asarray(x), jnp.asarray(y)))
    source = np.asarray(np.arange(40) < 20, float)

    @jax.jit
    def discrepancy(encoder):
        z = linear.apply(encoder, x)
        unit = typical(z, jnp.ones(40), "mean")
        return squared_mmd(gaussian(z, (0.5,), unit), source, 1 - source)

    before = float(discrepancy(params["network"].encoder))
    assert float(discrepancy(adapted.network.encoder)) < 0.1 * before


@pytest.mark.parametrize("make", [jm.mmd, jm.jan])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"estimator": "linear"}, "estimator: expected one of unbiased, biased"),
        ({"unit": "max"}, "unit: expected one of mean, median, none"),
        ({"squared_bandwidths": ()}, "squared_bandwidths: expected one number or more"),
        ({"squared_bandwidths": (1.0, 0.0)}, r"squared_bandwidths\[1\]: expected"),
    ],
)
def test_wrong_arguments_are_said(make, wrong, said):
    with pytest.raises(ValueError, match=said):
        make(IDENTITY, features=3, **wrong)


def test_implicit_is_refused():
    """The field is the gradient of no function, so it has no minimum."""
    field = inner.Game({"own": lambda *w: w[0]["own"]}, semi=True)
    with pytest.raises(ValueError, match="steps lead to none"):
        inner.Descent(field, optax.sgd, 1, jm.Implicit(), 0.1)(
            {"own": jnp.ones(())}, (), ()
        )
