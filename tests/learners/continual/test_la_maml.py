"""La-MAML against a loop in Python over its algorithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import double
from stream_task import TASK, XQ, YQ, X, Y, asked, both, close, cross_entropy, dense

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")
MODEL = jm.models.mlp(2, 3, (4,), activation=jnp.tanh)
SAME = lambda g: g


def outputs(w, x):
    return dense(w["head"], jnp.tanh(dense(w["dense1"], x)))


def steps(params, constant, x=X, y=Y):
    """theta_1, theta_2, ..."""
    path = [params.theta]
    for i in range(len(y)):
        loss = lambda w, i=i: cross_entropy(outputs(w, x[i : i + 1]), y[i : i + 1])[0]
        g = constant(jax.grad(loss)(path[-1]))
        rule = lambda w, a, g: w - jnp.maximum(0, a) * g
        path.append(jax.tree.map(rule, path[-1], params.alpha, g))
    return path[1:]


def start(learner):
    """With rates of all sizes, some of them negative."""
    params = double(learner.init(jax.random.key(0)))
    draw = lambda a: jnp.asarray(np.random.default_rng(0).uniform(-0.2, 0.5, a.shape))
    return params._replace(alpha=jax.tree.map(draw, params.alpha))


@pytest.mark.parametrize("first_order", [False, True])
def test_la_maml_looks_ahead_with_a_rate_for_every_weight(first_order):
    learner = jm.la_maml(MODEL, first_order=first_order)
    constant = jax.lax.stop_gradient if first_order else SAME
    wanted = lambda p: jnp.mean(
        jnp.stack([asked(outputs, w) for w in steps(p, constant)])
    )
    params = start(learner)
    found = both(lambda p: learner.objective(p, TASK, None, 0)[0], params)
    close(found, both(wanted, params))
    last = jax.jit(lambda params: steps(params, constant)[-1])
    close(learner.adapt(params, TASK.support), last(params))


def test_rates_move_first_and_then_the_weights_with_them():
    """Two minibatches of a stream, by hand: the second is asked about the first, too."""
    learner = jm.la_maml(MODEL, inner_lr=0.3)
    online = jm.continual.look_ahead(
        learner, jm.asynchronous(0.5, clip=0.2), memory=4, replayed=4,
        adapted=lambda params: params.theta,
    )  # fmt: skip
    batches = jm.Batch(X, Y), jm.Batch(XQ[:3], YQ[:3])

    @jax.jit
    def observed(batches):
        state = online.init(jax.random.key(0), batches[0])
        for i, batch in enumerate(batches):
            state, _ = online.observe(state, batch, jax.random.key(i))
        return state.params

    params, seen = jax.device_get(learner.init(jax.random.key(0))), []
    for batch in batches:
        x, y = (np.concatenate(a) for a in zip(batch[:2], *seen, strict=True))

        def ahead(p, batch=batch, x=x, y=y):
            path = steps(p, SAME, *batch[:2])
            return jnp.mean(
                jnp.stack([jnp.mean(cross_entropy(outputs(w, x), y)) for w in path])
            )

        g = jax.device_get(jax.jit(jax.grad(ahead))(params))
        norms = [np.sqrt(sum(np.sum(a**2) for a in jax.tree.leaves(t))) for t in g]
        theta, alpha = (
            jax.tree.map(lambda a, n=n: a * min(1, 0.2 / (n + 1e-6)), t)
            for t, n in zip(g, norms, strict=True)
        )
        rates = jax.tree.map(lambda a, g: a - 0.5 * g, params.alpha, alpha)
        rule = lambda w, a, g: w - np.maximum(0, a) * g
        params = type(params)(jax.tree.map(rule, params.theta, rates, theta), rates)
        seen.append(batch[:2])
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jax.tree.map(same, observed(batches), params)  # the network is in single precision


def test_first_order_as_an_adjoint_is_refused():
    with pytest.raises(ValueError, match="la_maml learns the inner rule's parameters"):
        jm.la_maml(MODEL, adjoint=jm.FirstOrder())
