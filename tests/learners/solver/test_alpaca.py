"""ALPaCA: Bayesian linear regression in its other form, and the prior of the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_points import IDENTITY

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")
FEATURES, STD = 3, 0.5
LEARNER = jm.alpaca(IDENTITY, features=FEATURES, y_dims=2, std=STD)


def prior():
    """Parameters of which each is something else than at the start."""
    random = np.random.default_rng(0)
    params = LEARNER.init(jax.random.key(0))
    return params._replace(
        k0=random.normal(size=(FEATURES, 2)),
        l0=np.eye(FEATURES) + 0.3 * random.normal(size=(FEATURES, FEATURES)),
        log_sigma=np.log([STD, 2 * STD]),
    )


def drawn(params, n, support=4):
    """Tasks of the model itself: support inputs and targets, query inputs and targets."""
    random = np.random.default_rng(1)
    half = np.linalg.cholesky(np.linalg.inv(params.l0 @ params.l0.T))
    noise = lambda *shape: random.normal(size=shape) * np.exp(params.log_sigma)
    k = params.k0 + half @ noise(n, FEATURES, 2)
    x = random.normal(size=(n, support + 3, FEATURES))
    y = x @ k + noise(n, support + 3, 2)
    part = lambda rows: jm.Batch(x[:, rows], y[:, rows])
    return jm.Task(part(slice(support)), part(slice(support, None)))


def test_it_is_a_gaussian_process_of_a_linear_kernel():
    """Of as many equations as support examples, not features."""
    params = prior()
    (x, y, _), (new, _, _) = jax.tree.map(lambda a: a[0], drawn(params, 1))
    kernel = lambda a, b: a @ np.linalg.solve(params.l0 @ params.l0.T, b.T)
    weights = np.linalg.solve(kernel(x, x) + np.eye(len(x)), kernel(x, new)).T
    mean = new @ params.k0 + weights @ (y - x @ params.k0)
    spread = 1 + np.diag(kernel(new, new) - weights @ kernel(x, new))

    both = lambda p, s, x: LEARNER.predict(LEARNER.adapt(p, s), x)
    found = jax.jit(both)(params, jm.Batch(x, y), new)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-10)
    std = np.sqrt(spread)[:, None] * np.exp(params.log_sigma)
    np.testing.assert_allclose(found.std, std, rtol=1e-10)


def test_the_prior_that_tasks_are_drawn_from_is_a_minimum_of_the_loss():
    """There the mean gradient is 0 up to chance; elsewhere it is not."""
    params, tasks = prior(), drawn(prior(), 4000, support=1)
    slopes = jax.jit(jax.vmap(jax.grad(lambda p, t: LEARNER.loss(p, t)[0]), (None, 0)))

    def largest(params):
        """Of all parameters, in standard errors."""
        each = np.concatenate(
            [
                np.reshape(a, (len(a), -1))
                for a in jax.tree.leaves(slopes(params, tasks))
            ],
            axis=1,
        )
        errors = each.std(axis=0) / len(each) ** 0.5
        return np.max(np.abs(each.mean(axis=0)) / errors)

    assert largest(params) < 4
    for name in ("k0", "l0", "log_sigma"):
        moved = params._replace(**{name: getattr(params, name) + 0.2})
        assert largest(moved) > 6


def test_a_prior_of_one_precision_is_ridge_regression():
    params = LEARNER.init(jax.random.key(0))
    (x, y, _), (new, _, _) = jax.tree.map(lambda a: a[0], drawn(prior(), 1))
    found = LEARNER.predict(LEARNER.adapt(params, jm.Batch(x, y)), new).mean
    np.testing.assert_allclose(found, new @ jm.solvers.ridge(x, y, 1.0), rtol=1e-10)


def test_wrong_arguments_get_a_sentence():
    for own, sentence in (
        ({"precision": 0.0}, "precision: expected a number > 0, got 0"),
        ({"std": -1.0}, "std: expected a number > 0, got -1"),
        ({"y_dims": 0}, "y_dims: expected a whole number >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            jm.alpaca(IDENTITY, features=FEATURES, **own)
    other = jm.alpaca(IDENTITY, features=FEATURES + 1)
    params = other.init(jax.random.key(0))
    with pytest.raises(ValueError, match="features"):
        other.adapt(params, jm.Batch(jnp.ones((2, FEATURES)), jnp.ones((2, 1))))
