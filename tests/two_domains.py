"""A task of two small domains, and training on it by loops over slices of the data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from problems import double

import jaxmeta as jm

WAYS, FEATURES, RATE, STEPS = 3, 4, 0.2, 3
ENCODER = jm.models.mlp(2, FEATURES, (5,), activation=jnp.tanh)
HOW = {"ways": WAYS, "features": FEATURES, "inner_steps": STEPS}
BY_SGD = {**HOW, "inner_lr": RATE, "rule": optax.sgd}


def small(inputs=FEATURES, outputs=1):
    """A discriminator, or a decoder."""
    return jm.models.mlp(inputs, outputs, (5,), activation=jnp.tanh)


def task(seed=0, source=7, target=5):
    """Three classes in the plane, the target moved; examples of both in any order."""
    random = np.random.default_rng(seed)
    centres = 2 * random.normal(size=(WAYS, 2))

    def domain(n, by):
        y = np.arange(n) % WAYS
        return centres[y] + by + 0.5 * random.normal(size=(n, 2)), y

    (x, y), (moved, _) = domain(source, 0.0), domain(target, 0.8)
    query = jm.Batch(*domain(6, 0.8))
    order = random.permutation(source + target)
    labels = np.concatenate([y, np.full(target, -1)])
    return jm.Task(
        jm.Batch(np.concatenate([x, moved])[order], labels[order]),
        jax.tree.map(jnp.asarray, query),
    )


def start(learner, seed=0):
    """First parameters in float64, biases included."""
    params = double(learner.init(jax.random.key(seed)))
    away = lambda p: p + 0.1 * np.sin(np.arange(p.size)).reshape(p.shape)
    return jax.tree.map(away, params)


def slices(support):
    """x of the source, y of the source, x of the target."""
    x, y = map(np.asarray, support[:2])
    return x[y >= 0], y[y >= 0], x[y < 0]


def network(w, x):
    """(features, logits) of a `Network`."""
    z = ENCODER.apply(w.encoder, x)
    return z, z @ w.w + w.b[None, :]


def cross_entropy(logits, y):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def tell(source, target):
    """Cross-entropy between the domains from logits of "target", a half each."""
    of = lambda logits, label: jnp.mean(
        optax.sigmoid_binary_cross_entropy(logits, jnp.full(logits.shape, label))
    )
    return (of(source, 0.0) + of(target, 1.0)) / 2


def ramp(step, steps=STEPS):
    return jnp.tanh(5 * step / steps)  # what 2 / (1 + exp(-10 p)) - 1 is


def play(w, objectives, steps=STEPS, rate=RATE):
    """Plain steps at the same time: objectives {part: (w, step) -> []}."""

    def slope(part, objective):
        mine = lambda p, w, step: objective({**w, part: p}, step)
        return jax.jit(jax.grad(mine))

    slopes = {part: slope(part, objective) for part, objective in objectives.items()}
    for step in range(steps):
        g = {part: slope(w[part], w, step) for part, slope in slopes.items()}
        w = {**w, **{n: optax.tree.add_scale(w[n], -rate, g[n]) for n in g}}
    return w


def agree(found, expected, tolerance=1e-10):
    """Trees of the same shape, leaf by leaf."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
