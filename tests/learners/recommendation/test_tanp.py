"""TaNP's parts against numpy, and its bound put together from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import double, few_ratings
from scipy.stats import entropy, norm

import jaxmeta as jm
from jaxmeta.learners.recommendation.tanp import (
    TINY,
    Posterior,
    decoded,
    divergence,
    drawn,
    resemblance,
    sharpness,
)

pytestmark = pytest.mark.usefixtures("x64")

RANDOM = np.random.default_rng(0)
normal = lambda *shape: jnp.asarray(RANDOM.normal(size=shape))


def test_resemblance_is_a_students_kernel():
    o, centres, a = normal(3), normal(4, 3), 1.7
    wanted = [
        (1 + np.linalg.norm(o - centre) / a) ** (-(a + 1) / 2) for centre in centres
    ]
    found = resemblance(o, centres, a)
    np.testing.assert_allclose(found, wanted / np.sum(wanted), rtol=1e-10)
    t = np.square(found) / np.square(found).sum()
    np.testing.assert_allclose(sharpness(found), entropy(t, found), rtol=1e-10)


def test_divergence_is_that_of_normals():
    q, p = (Posterior(normal(1), normal(1)) for _ in range(2))
    z = np.linspace(-40, 40, 400_001)
    density = lambda d: norm(d.mean[0], np.exp(0.5 * d.log_variance[0])).logpdf(z)
    ratio = np.exp(density(q)) * (density(q) - density(p))
    numeric = ratio.sum() * (z[1] - z[0])
    np.testing.assert_allclose(divergence(q, p), numeric, rtol=1e-8)
    assert divergence(q, q) == 0


def test_the_decoder_is_scaled_and_shifted_by_the_user():
    params = {"head": {"kernel": normal(4, 1), "bias": normal(1)}}
    for i, size in ((1, 6), (2, 4)):
        params[f"dense{i}"] = {"kernel": normal(size, 4), "bias": normal(4)}
        params |= {
            f"{name}{i}": {"kernel": normal(3, 4)} for name in ("scale", "shift")
        }
    x, o = normal(5, 6), normal(3)
    h = np.asarray(x)
    for i in (1, 2):
        scale, shift = (
            np.tanh(np.asarray(o @ params[f"{n}{i}"]["kernel"]))
            for n in ("scale", "shift")
        )
        layer = params[f"dense{i}"]
        h = np.asarray(h @ layer["kernel"]) + np.asarray(layer["bias"])
        h = np.maximum(h * scale + shift, 0)
    wanted = np.asarray(h @ params["head"]["kernel"]) + np.asarray(
        params["head"]["bias"]
    )
    np.testing.assert_allclose(decoded(params, x, o), wanted, rtol=1e-10)


def test_a_drawn_z_has_its_mean_and_deviation():
    q = Posterior(jnp.array([2.0, -1.0]), jnp.log(jnp.array([4.0, 0.25])))
    keys = jax.random.split(jax.random.key(0), 4000)
    z = jax.vmap(drawn, (0, None))(keys, q)
    np.testing.assert_allclose(z.mean(0), q.mean, atol=0.15)
    np.testing.assert_allclose(z.std(0), [2.0, 0.5], rtol=0.05)
    assert (drawn(None, q) == q.mean).all()


def test_training_descends_the_sum_of_its_parts():
    """Without weights it is the squared error of all; each weight adds its part once."""
    task = double(jm.tasks.users(few_ratings(), queries=2).sample(jax.random.key(0)))
    embedding = jm.models.rater(6, 4, (4,), width=2)
    learners = [
        jm.tanp(embedding, features=4, **TINY, kl_weight=kl, cluster_weight=weight)
        for kl, weight in ((0, 0), (1, 0), (2, 0), (0, 1))
    ]
    join = lambda a, b: jnp.concatenate([a, b])
    everything = jm.Batch(*jax.tree.map(join, *(tuple(b[:2]) for b in task)))

    @jax.jit
    def both(params):
        values = jnp.stack(
            [one.objective(params, task, None, 0)[0] for one in learners]
        )
        # z of all that is known, o of the support set
        adapted = learners[0].adapt(params, task.support)
        z = learners[0].adapt(params, everything).z
        outputs = learners[0].predict(adapted._replace(z=z), everything.x)
        return values, jnp.mean(jnp.square(outputs - everything.y))

    values, error = both(double(jax.jit(learners[0].init)(jax.random.key(1))))
    assert float(values[0]) == pytest.approx(float(error), rel=1e-10)
    kl, twice, sharp = np.subtract(values[1:], values[0])
    assert kl > 0 and sharp >= 0 and twice == pytest.approx(2 * kl, rel=1e-10)
