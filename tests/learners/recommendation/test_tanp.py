"""TaNP's parts against numpy, and its bound put together from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import double, one_user
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
    """Networks applied one by one: the error of all, with z of all that is known and the
    identity of the support set, and both divergences."""
    task = double(one_user())
    embedding = jm.models.rater(6, 4, (4,), width=2)
    learner = jm.tanp(embedding, features=4, **TINY, kl_weight=0.7, cluster_weight=0.2)
    h = jm.models.set_encoder(5, 8, hidden=(8, 8, 8), after=(8,))
    m = jm.models.set_encoder(5, 8, hidden=(16, 8), after=(8,))
    join = lambda a, b: jnp.concatenate([a, b])
    everything = jm.Batch(*jax.tree.map(join, *(tuple(b[:2]) for b in task)))

    @jax.jit
    def both(params):
        seen = embedding.apply(params.embedding, everything.x)
        rows = jnp.concatenate([seen, everything.y], axis=1)
        known = rows[: len(task.support.y)]
        prior, q = (
            Posterior(*jnp.split(h.apply(params.latent, r), 2)) for r in (known, rows)
        )
        o = m.apply(params.identity, known)
        c = resemblance(o, params.centres, 1.0)
        z = jnp.broadcast_to(q.mean[None], (len(seen), 4))
        x = jnp.concatenate([seen, z], axis=1)
        outputs = decoded(params.decoder, x, o + c @ params.centres)
        error = jnp.mean(jnp.square(outputs - everything.y))
        by_hand = error + 0.7 * divergence(q, prior) + 0.2 * sharpness(c)
        return learner.objective(params, task, None, 0)[0], by_hand

    found, wanted = both(double(learner.init(jax.random.key(1))))
    assert float(found) == pytest.approx(float(wanted), rel=1e-10)
