"""A stream with its own questions, and by hand: loops in Python over plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxmeta as jm

RANDOM = np.random.default_rng(0)
WAYS, FEATURES, DIMS = 3, 4, 2
ALPHA = 0.3
X, Y = RANDOM.normal(size=(4, DIMS)), np.array([2, 2, 0, 1])
XQ, YQ = RANDOM.normal(size=(5, DIMS)), np.array([0, 1, 2, 2, 1])
TASK = jm.Task(jm.Batch(X, Y), jm.Batch(XQ, YQ))


def weights(*shape):
    return jnp.asarray(RANDOM.normal(size=shape))


def layer(inputs, outputs):
    """A network tanh(x w) with weights of its own."""
    w = weights(inputs, outputs)
    return jm.Model(lambda key: {"w": w}, lambda p, x: jnp.tanh(x @ p["w"]))


ENCODER, GATE = layer(DIMS, FEATURES), layer(DIMS, FEATURES)
HEAD = jm.models.mlp(FEATURES, WAYS, ())


def cross_entropy(logits, y):
    return -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y]


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"][None]


def answer(head, z):
    return dense(head["head"], z)


def without(head, classes):
    """A head whose outputs for some classes are 0."""
    keep = jnp.asarray(~np.isin(np.arange(WAYS), classes), float)
    return jax.tree.map(lambda a: a * jnp.broadcast_to(keep, a.shape), head)


def by_hand(outputs, w, constant=lambda g: g, x=X, y=Y):
    """w after each example: [w_0, w_1, ...]; outputs: (w, x) -> logits."""
    path = [w]
    for i in range(len(y)):
        loss = lambda w, i=i: cross_entropy(outputs(w, x[i : i + 1]), y[i : i + 1])[0]
        g = constant(jax.grad(loss)(path[-1]))
        path.append(jax.tree.map(lambda a, g: a - ALPHA * g, path[-1], g))
    return path


def asked(outputs, w):
    """The loss of the query set."""
    return jnp.mean(cross_entropy(outputs(w, XQ), YQ))


def close(ours, theirs):
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
    jax.tree.map(same, ours, theirs)


def both(f, params):
    """Value and gradient, by one program."""
    return jax.jit(jax.value_and_grad(f))(params)
