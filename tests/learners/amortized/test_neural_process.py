"""Neural process: numbers that our code did not produce."""

from functools import partial

import jax
import numpy as np
import pytest
from few_points import close, curve, objective, start
from problems import pad
from scipy.special import expit, logsumexp
from scipy.stats import norm

import jaxmeta as jm
from jaxmeta.learners.amortized.latent import _divergence
from jaxmeta.learners.gaussian import Gaussian

pytestmark = pytest.mark.usefixtures("x64")


def test_divergence_is_an_integral():
    q, p = (
        Gaussian(np.array([0.3]), np.array([0.5])),
        Gaussian(np.array([-1.0]), np.array([0.8])),
    )
    grid = np.linspace(-8, 8, 200_001)
    density = norm.pdf(grid, 0.3, 0.5)
    logs = norm.logpdf(grid, 0.3, 0.5) - norm.logpdf(grid, -1.0, 0.8)
    close(
        jax.jit(_divergence)(q, p), (density * logs).sum() * (grid[1] - grid[0]), 1e-6
    )


def processes(**kwargs):
    mlp = jm.models.mlp
    latent = jm.models.set_encoder(2, 6, hidden=(4,), after=(4,), heads=2)
    attend = jm.models.cross_attention(1, 4, width=4, heads=2, hidden=(4,))
    decoder = mlp(8, 2, (4,))
    return {
        "neural_process": jm.neural_process(
            mlp(2, 4, (4,)), latent, decoder, samples=5, **kwargs
        ),
        "anp": jm.anp(mlp(2, 4, (4,)), latent, attend, decoder, samples=5, **kwargs),
    }


@pytest.mark.parametrize("name", ["neural_process", "anp"])
def test_neural_processes_mix_samples_and_are_bounded(name):
    learner, task = processes()[name], curve()
    params = start(learner)
    adapt, predict = jax.jit(learner.adapt), jax.jit(learner.predict)
    adapted = jax.device_get(adapt(params, task.support, jax.random.key(1)))
    each = [
        jax.device_get(predict(adapted._replace(z=z[None]), task.query.x))
        for z in adapted.z
    ]
    mean = np.mean([g.mean for g in each], axis=0)
    mixed = predict(adapted, task.query.x)
    close(mixed.mean, mean)
    square = np.mean([np.square(g.mean) + np.square(g.std) for g in each], axis=0)
    close(mixed.std, np.sqrt(square - mean**2))
    logs = [norm.logpdf(task.query.y, g.mean, g.std)[:, 0] for g in each]
    value = (logsumexp(logs, axis=0) - np.log(5)).mean()
    metrics = jax.jit(learner.loss)(params, task, jax.random.key(1))[1]
    close(metrics["log_likelihood"], value)
    # one point that is also the support: q(z | T) = q(z | C), so the bound has no
    # divergence and is one sample's likelihood
    one = jm.Task(task.support, task.support)
    bound = objective(learner, params, one)[0]
    at_mean = predict(adapt(params, one.support), one.query.x)
    close(bound, -norm.logpdf(one.query.y, at_mean.mean, at_mean.std).mean())


def test_more_samples_take_the_bound_to_the_marginal_likelihood():
    """Which is an integral over the one dimension of z, p(z) being q(z | C)."""
    latent = jm.models.set_encoder(2, 2, hidden=(4,), after=(4,))
    nets = jm.models.mlp(2, 1, (4,)), latent, jm.models.mlp(3, 2, (4,))
    few, many = (jm.neural_process(*nets, train_samples=k) for k in (1, 20_000))
    task = curve()
    params = start(few, 3)
    pairs = np.concatenate(task.support[:2], axis=1)
    mean, omega = np.asarray(jax.jit(latent.apply)(params.latent, pairs))
    std = 0.1 + 0.9 * expit(omega)
    z = np.linspace(mean - 8 * std, mean + 8 * std, 2001)
    x, y = (np.concatenate([getattr(b, n) for b in task]) for n in "xy")
    adapted = jax.jit(few.adapt)(params, task.support)
    read = jax.vmap(lambda z: few.predict(adapted._replace(z=z[None, None]), x))
    at = jax.device_get(jax.jit(read)(z))
    logs = norm.logpdf(z, mean, std) + norm.logpdf(y[None], *at).sum((1, 2))
    marginal = (logsumexp(logs) + np.log(z[1] - z[0])) / len(y)

    def bound(learner, key):
        return -learner.objective(params, task, key, 0)[0]

    close(jax.jit(partial(bound, many))(jax.random.key(0)), marginal, 1e-3)
    keys = jax.random.split(jax.random.key(1), 50)
    draws = jax.jit(jax.vmap(partial(bound, few)))(keys)
    assert np.mean(draws) < marginal - 1e-3


@pytest.mark.parametrize(
    ("name", "samples"),
    [("cnp", None), ("neural_process", 1), ("anp", 4)],
)
def test_masked_points_change_no_bound(name, samples):
    """As in the contract, but of what training descends."""
    if name == "cnp":
        learner = jm.cnp(jm.models.mlp(2, 4, (4,)), jm.models.mlp(5, 2, (4,)))
    else:
        learner = processes(train_samples=samples)[name]
    task = curve()
    padded = jm.Task(*(pad(batch, 3, np.nan) for batch in task))
    params = start(learner)
    bound = jax.jit(
        lambda task: learner.objective(params, task, jax.random.key(1), 0)[0]
    )
    close(bound(padded), bound(task))
