"""Each learner of the gradient family against its paper's equations in numpy.

The problem is linear regression, so that every inner gradient is a formula; derivatives
of the numpy programs are by finite differences.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta as jm
from jaxmeta.learners.gradient.bmaml import _svgd
from jaxmeta.learners.gradient.maml_plus_plus import _weights
from jaxmeta.learners.gradient.parts import log_and_sign
from jaxmeta.models import lstm

pytestmark = pytest.mark.usefixtures("x64")

RANDOM = np.random.default_rng(0)
X, Y, XQ, YQ = (RANDOM.normal(size=s) for s in ((6, 4), (6, 2), (5, 4), (5, 2)))
W = RANDOM.normal(size=(4, 2))
TASK = jm.Task(jm.Batch(X, Y), jm.Batch(XQ, YQ))
MODEL = jm.Model(lambda key: {"kernel": jnp.asarray(W)}, lambda p, x: x @ p["kernel"])


def slope(w, x=X, y=Y):
    """Gradient of the mean squared error."""
    return 2 * x.T @ (x @ w - y) / y.size


def query_loss(w):
    return np.mean(np.square(XQ @ w - YQ))


def numeric(f, value, h=1e-6):
    """Gradient of a numpy function of one array by central differences."""
    out = np.zeros_like(value)
    for place in np.ndindex(*value.shape):
        nudge = np.zeros_like(value)
        nudge[place] = h
        out[place] = (f(value + nudge) - f(value - nudge)) / (2 * h)
    return out


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)


def gradient(learner, params, key=None):
    """Of the loss."""
    return jax.jit(jax.grad(lambda p: learner.loss(p, TASK, key)[0]))(params)


def descended(learner, params):
    """((value, metrics), gradient) of what training descends, where it is not the loss."""
    f = lambda p: learner.objective(p, TASK, None, 0)
    return jax.jit(jax.value_and_grad(f, has_aux=True))(params)


OPTIONS = {"loss": jm.losses.mse, "inner_steps": 3}


def test_meta_sgd():
    learner = jm.meta_sgd(MODEL, **OPTIONS)
    alpha = RANDOM.uniform(0.01, 0.2, size=W.shape)

    def loss(w, alpha):
        for _ in range(3):
            w = w - alpha * slope(w)
        return query_loss(w)

    params = learner.init(jax.random.key(0))._replace(
        phi={"kernel": jnp.asarray(alpha)}
    )
    found = gradient(learner, params)
    close(found.theta["kernel"], numeric(lambda w: loss(w, alpha), W))
    close(found.phi["kernel"], numeric(lambda a: loss(W, a), alpha))


def test_meta_sgd_draws_its_step_sizes():
    learner = jm.meta_sgd(jm.models.mlp(), inner_lr=(0.005, 0.1))
    alpha = np.concatenate(
        [np.ravel(a) for a in jax.tree.leaves(learner.init(jax.random.key(0)).phi)]
    )
    assert 0.005 <= alpha.min() < 0.006 and 0.099 < alpha.max() <= 0.1


def test_meta_curvature():
    learner = jm.meta_curvature(MODEL, inner_lr=0.1, **OPTIONS)
    m_in, m_out = (np.eye(n) + 0.2 * RANDOM.normal(size=(n, n)) for n in (4, 2))

    def loss(w, m_in, m_out):
        for _ in range(3):
            w = w - 0.1 * np.einsum("ij,jo,po->ip", m_in, slope(w), m_out)
        return query_loss(w)

    params = learner.init(jax.random.key(0))
    params = params._replace(phi=[[jnp.asarray(m_in), jnp.asarray(m_out)]])
    found = gradient(learner, params)
    close(found.theta["kernel"], numeric(lambda w: loss(w, m_in, m_out), W))
    close(found.phi[0][0], numeric(lambda m: loss(W, m, m_out), m_in))
    close(found.phi[0][1], numeric(lambda m: loss(W, m_in, m), m_out))


def test_meta_curvature_has_a_matrix_for_the_positions_of_a_kernel():
    model = jm.models.conv4(5, widths=4)
    shapes = jax.eval_shape(jm.meta_curvature(model).init, jax.random.key(0)).phi
    assert [(9, 9), (4, 4), (4, 4)] in [[m.shape for m in leaf] for leaf in shapes]


def test_tnet():
    learner = jm.tnet(MODEL, inner_lr=0.1, **OPTIONS)
    t = np.eye(2) + 0.3 * RANDOM.normal(size=(2, 2))

    def loss(w, t):
        for _ in range(3):
            w = w - 0.1 * slope(w @ t) @ t.T
        return query_loss(w @ t)

    params = learner.init(jax.random.key(0))._replace(t=[jnp.asarray(t)])
    found = gradient(learner, params)
    close(found.theta["kernel"], numeric(lambda w: loss(w, t), W))
    close(found.t[0], numeric(lambda t: loss(W, t), t))


def test_alfa():
    learner = jm.alfa(MODEL, inner_lr=0.1, **OPTIONS)
    w1, w2 = RANDOM.normal(size=(2, 2)), 0.3 * RANDOM.normal(size=(2, 2))
    b1, b2 = RANDOM.normal(size=2), np.ones(2)
    alpha0, beta0 = RANDOM.uniform(0.05, 0.2, (3, 1)), RANDOM.uniform(0.9, 1.0, (3, 1))

    def loss(w, w2):
        for j in range(3):
            g = slope(w)
            hidden = np.maximum(np.array([g.mean(), w.mean()]) @ w1 + b1, 0)
            alpha, beta = hidden @ w2 + b2
            w = beta0[j] * beta * w - alpha0[j] * alpha * g
        return query_loss(w)

    params = learner.init(jax.random.key(0))
    mlp = {"w1": w1, "w2": w2, "b1": b1, "b2": b2}
    phi = params.phi._replace(mlp=mlp, alpha=alpha0, beta=beta0)
    found = gradient(learner, params._replace(phi=jax.tree.map(jnp.asarray, phi)))
    close(found.theta["kernel"], numeric(lambda w: loss(w, w2), W))
    close(found.phi.mlp["w2"], numeric(lambda w2: loss(W, w2), w2))


def test_alfa_starts_as_maml():
    alfa = jm.alfa(MODEL, inner_lr=0.1, **OPTIONS)
    maml = jm.maml(MODEL, inner_lr=0.1, **OPTIONS)
    close(
        alfa.adapt(alfa.init(jax.random.key(0)), TASK.support)["kernel"],
        maml.adapt({"kernel": jnp.asarray(W)}, TASK.support)["kernel"],
    )


def test_boil():
    body, head = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(3, 2))
    model = jm.Model(
        lambda key: {"body": jnp.asarray(body), "head": jnp.asarray(head)},
        lambda p, x: x @ p["body"] @ p["head"],
    )

    def loss(body, head):
        for _ in range(3):
            body = body - 0.1 * slope(body @ head) @ head.T
        return query_loss(body @ head)

    learner = jm.boil(model, inner_lr=0.1, **OPTIONS)
    found = gradient(learner, learner.init(jax.random.key(0)))
    close(found["body"], numeric(lambda b: loss(b, head), body))
    close(found["head"], numeric(lambda h: loss(body, h), head))


def test_cavia():
    """Outputs x W + phi V: the context moves the outputs through V alone."""
    v = RANDOM.normal(size=(3, 2))
    model = jm.Model(
        lambda key: {
            "kernel": jnp.asarray(W),
            "v": jnp.asarray(v),
            "context": jnp.ones(3),
        },
        lambda p, x: x @ p["kernel"] + (p["context"] @ p["v"])[None],
    )

    def adapted(w, v):
        phi = np.zeros(3)  # whatever the model starts with
        for _ in range(3):
            errors = X @ w + phi @ v - Y
            phi = phi - 0.5 * (2 / Y.size) * errors.sum(0) @ v.T
        return phi

    def loss(w, v):
        return np.mean(np.square(XQ @ w + adapted(w, v) @ v - YQ))

    learner = jm.cavia(model, inner_lr=0.5, **OPTIONS)
    params = learner.init(jax.random.key(0))
    assert params.keys() == {"kernel", "v"}
    close(learner.adapt(params, TASK.support)["context"], adapted(W, v))
    found = gradient(learner, params)
    close(found["kernel"], numeric(lambda w: loss(w, v), W))
    close(found["v"], numeric(lambda v: loss(W, v), v))


def test_film_of_zeros_changes_nothing_and_others_do():
    plain, film = jm.models.conv4(3, widths=4), jm.models.conv4(3, widths=4, context=2)
    params = film.init(jax.random.key(0))
    rest = {k: v for k, v in params.items() if k not in ("context", "film")}
    x = jnp.asarray(RANDOM.normal(size=(3, 28, 28, 1)))
    np.testing.assert_array_equal(film.apply(params, x), plain.apply(rest, x))
    moved = params | {"context": jnp.array([1.0, -1.0])}
    assert jnp.abs(film.apply(moved, x) - plain.apply(rest, x)).max() > 1e-3


def test_reptile_moves_by_the_displacement():
    learner = jm.reptile(MODEL, inner_lr=0.1, **OPTIONS)
    w = W
    for _ in range(3):
        w = w - 0.1 * slope(w)
    params = learner.init(jax.random.key(0))
    (value, _), move = descended(learner, params)
    close(move["kernel"], W - w)
    close(value, query_loss(w))
    close(learner.loss(params, TASK)[0], query_loss(w))
    # with plain SGD of rate epsilon outside that is algorithm 1
    step = jm.make_step(learner, optax.sgd(0.25))
    state = jm.init_state(learner, optax.sgd(0.25), jax.random.key(0))
    state, _ = step(state, jax.tree.map(lambda a: a[None], TASK), jax.random.key(0))
    close(state.params["kernel"], W + 0.25 * (w - W))


def test_reptile_minibatches_are_passes_through_the_support_set():
    learner = jm.reptile(
        MODEL, inner_lr=0.1, inner_steps=4, inner_batch=3, loss=jm.losses.mse
    )
    key = jax.random.key(3)
    halves = jax.random.split(jax.random.key(3), 2)  # a key is used once
    orders = [jax.random.permutation(k, 6) for k in halves]
    w = W
    for chosen in np.concatenate(orders).reshape(4, 3):
        w = w - 0.1 * slope(w, X[chosen], Y[chosen])
    close(learner.adapt({"kernel": jnp.asarray(W)}, TASK.support, key)["kernel"], w)
    with pytest.raises(ValueError, match="inner_batch: 7 examples .* support set of 6"):
        jm.reptile(MODEL, inner_batch=7, loss=jm.losses.mse).adapt(
            {"kernel": jnp.asarray(W)}, TASK.support
        )


def test_reptile_does_not_draw_from_padding():
    padded = TASK.support._replace(mask=np.ones(6))
    with pytest.raises(ValueError, match="inner_batch: a padded support set"):
        jm.reptile(MODEL, inner_batch=3, loss=jm.losses.mse).adapt(
            {"kernel": W}, padded
        )


def test_proximal_descends_the_moreau_envelope():
    penalty = 0.7
    learner = jm.proximal(
        MODEL, inner_lr=0.2, inner_steps=2000, penalty=penalty, loss=jm.losses.mse
    )

    def envelope(theta):
        system = 2 * X.T @ X / Y.size + penalty * np.eye(4)
        w = np.linalg.solve(system, 2 * X.T @ Y / Y.size + penalty * theta)
        away = penalty / 2 * np.sum(np.square(w - theta))
        return np.mean(np.square(X @ w - Y)) + away

    _, found = descended(learner, learner.init(jax.random.key(0)))
    close(found["kernel"], numeric(envelope, W))


def test_protomaml_without_steps_is_a_prototypical_network(blobs):
    encoder = jm.models.mlp(6, 8, (16,))
    task = jm.tasks.episodes(blobs, 3, 2, 4).sample(jax.random.key(0))
    params = encoder.init(jax.random.key(1))
    probabilities = [
        jax.nn.softmax(lr.predict(lr.adapt(params, task.support), task.query.x))
        for lr in (
            jm.protomaml(encoder, ways=3, inner_steps=0),
            jm.protonet(encoder, ways=3),
        )
    ]
    np.testing.assert_allclose(*probabilities, rtol=1e-4, atol=1e-6)


def test_svgd_step():
    """Equation 4 written out with loops, for three particles in two dimensions."""
    theta, g, n = RANDOM.normal(size=(3, 2)), RANDOM.normal(size=(3, 2)), 5
    squares = np.square(theta[:, None] - theta[None]).sum(-1)
    h = np.median(squares) / np.log(4) + 1e-8
    expected = np.zeros((3, 2))
    for m in range(3):
        for j in range(3):
            k = np.exp(-squares[j, m] / h)
            grad_k = -2 / h * (theta[j] - theta[m]) * k  # in theta_j
            expected[m] += k * (-n * g[j]) + grad_k
    rule = _svgd((0.1, n))
    update, _ = rule.update(jnp.asarray(g), rule.init(theta), jnp.asarray(theta))
    close(update, 0.1 / n * expected / 3)


def test_bmaml_with_one_particle_chases_gradient_descent():
    learner = jm.bmaml(
        MODEL,
        particles=1,
        inner_lr=0.1,
        inner_steps=2,
        leader_steps=3,
        loss=jm.losses.mse,
    )
    both = np.concatenate([X, XQ]), np.concatenate([Y, YQ])

    def descend(w, steps, x, y):
        for _ in range(steps):
            w = w - 0.1 * slope(w, x, y)
        return w

    chaser = descend(W, 2, X, Y)
    leader = descend(chaser, 3, *both)
    params = {"kernel": jnp.asarray(W)[None]}
    (value, metrics), found = descended(learner, params)
    close(value, np.square(chaser - leader).sum())
    close(metrics["loss"], query_loss(chaser))
    close(learner.loss(params, TASK)[0], query_loss(chaser))
    expected = numeric(lambda w: np.square(descend(w, 2, X, Y) - leader).sum(), W)
    close(found["kernel"][0], expected)


def test_bootstrapped():
    learner = jm.bootstrapped(
        MODEL, inner_lr=0.1, inner_steps=2, target_steps=3, loss=jm.losses.mse
    )
    w = [W]
    for _ in range(4):
        w.append(w[-1] - 0.1 * slope(w[-1]))
    target = w[4] - 0.1 * slope(w[4], XQ, YQ)

    def loss(theta):
        for _ in range(2):
            theta = theta - 0.1 * slope(theta)
        return np.mean(np.square(XQ @ (theta - target)))

    params = learner.init(jax.random.key(0))
    (value, metrics), found = descended(learner, params)
    close(value, loss(W))
    close(found["kernel"], numeric(loss, W))
    close(metrics["loss"], query_loss(w[2]))


def test_bootstrapped_divergence_is_that_of_scipy():
    from scipy.stats import entropy

    from jaxmeta.learners.gradient.bootstrapped import _divergence

    target, outputs = RANDOM.normal(size=(2, 4, 3))
    p, q = (np.exp(a) / np.exp(a).sum(1, keepdims=True) for a in (target, outputs))
    close(_divergence(target, outputs, True), entropy(p, q, axis=1))


def test_mtl():
    body, head = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(3, 2))
    bias = RANDOM.normal(size=3)
    frozen = {"body": {"kernel": body, "bias": bias}, "head": np.zeros((3, 2))}
    model = jm.Model(
        lambda key: jax.tree.map(jnp.asarray, frozen) | {"head": jnp.asarray(head)},
        lambda p, x: (x @ p["body"]["kernel"] + p["body"]["bias"][None]) @ p["head"],
    )
    learner = jm.mtl(
        model, frozen=jax.tree.map(jnp.asarray, frozen), inner_lr=0.1, **OPTIONS
    )
    scale, shift = RANDOM.uniform(0.5, 1.5, (1, 3)), RANDOM.normal(size=3)

    def loss(scale, shift):
        z, zq = (x @ (body * scale) + bias + shift for x in (X, XQ))
        w = head
        for _ in range(3):
            w = w - 0.1 * slope(w, z, Y)
        return np.mean(np.square(zq @ w - YQ))

    params = learner.init(jax.random.key(0))
    assert params.scale[0].shape == (1, 3) and params.shift[0].shape == (3,)
    params = params._replace(scale=[jnp.asarray(scale)], shift=[jnp.asarray(shift)])
    found = gradient(learner, params)
    close(found.scale[0], numeric(lambda s: loss(s, shift), scale))
    close(found.shift[0], numeric(lambda s: loss(scale, s), shift))
    # a network pre-trained on another number of classes
    wide = jax.tree.map(jnp.asarray, frozen | {"head": np.zeros((3, 64))})
    jm.mtl(model, frozen=wide)
    with pytest.raises(ValueError, match="frozen: expected parameters of shapes"):
        jm.mtl(model, frozen={"body": jnp.zeros(3)})


def test_maml_plus_plus():
    """Rates of each step, and the annealed loss over all steps."""
    learner = jm.maml_plus_plus(
        MODEL, multi_step_until=10, first_order_until=2, inner_lr=0.1, **OPTIONS
    )
    rates = np.array([0.05, 0.1, 0.2])

    def loss(w, rates, v):
        losses = []
        for rate in rates:
            w = w - rate * slope(w)
            losses.append(query_loss(w))
        return np.dot(v, losses)

    params = learner.init(jax.random.key(0))
    params = params._replace(alpha={"kernel": jnp.asarray(rates)})

    def at(step):
        f = lambda p: learner.objective(p, TASK, None, jnp.asarray(step))[0]
        return jax.value_and_grad(f)(params)

    for step, v in ((5, [1 / 6, 1 / 6, 2 / 3]), (10, [0, 0, 1]), (99, [0, 0, 1])):
        value, found = at(step)
        close(value, loss(W, rates, v))
        close(found.theta["kernel"], numeric(lambda w, v=v: loss(w, rates, v), W))
        close(found.alpha["kernel"], numeric(lambda r, v=v: loss(W, r, v), rates))
    # first order: the query gradients, for W and along the way for the rates
    value, found = at(1)
    v, w, total = np.array([0.3, 0.3, 0.4]), W, np.zeros_like(W)
    for k, rate in enumerate(rates):
        w = w - rate * slope(w)
        total += v[k] * slope(w, XQ, YQ)
    close(value, loss(W, rates, v))
    close(found.theta["kernel"], total)
    close(learner.loss(params, TASK)[0], loss(W, rates, [0, 0, 1]))


def test_maml_plus_plus_weights_are_annealed_to_the_last_step():
    close(_weights(0.0, 5), np.full(5, 0.2))
    close(_weights(0.99, 5), [0.006] * 4 + [0.976])  # never below 3 % of the start
    close(_weights(1.0, 5), [0, 0, 0, 0, 1])


def test_maml_plus_plus_has_norms_for_each_step_that_are_not_adapted():
    model = jm.models.conv4(3, widths=4)
    learner = jm.maml_plus_plus(model, inner_steps=2)
    params = learner.init(jax.random.key(0))
    assert params.norms["norm1"]["scale"].shape == (2, 4)
    assert not any(name.startswith("norm") for name in params.theta)
    task = jm.Task(*(jm.Batch(jnp.ones((3, 28, 28, 1)), jnp.arange(3)),) * 2)
    adapted = learner.adapt(params, task.support)
    np.testing.assert_array_equal(
        adapted["norm1"]["scale"], params.norms["norm1"]["scale"][1]
    )


def test_log_and_sign_of_gradients():
    values = np.array([1.0, -np.e, 1e-3, 1e-6, -1e-6, 0.0])
    expected = [[0, 1], [0.1, -1], [np.log(1e-3) / 10, 1]]
    expected += [[-1, np.exp(10) * v] for v in values[3:]]
    close(log_and_sign(jnp.asarray(values)), expected)
    assert jnp.isfinite(jax.grad(lambda v: log_and_sign(v).sum())(jnp.zeros(1))).all()


def test_learned_optimizer_sums_the_losses_along_the_way():
    learner = jm.learned_optimizer(MODEL, hidden=4, inner_steps=3, loss=jm.losses.mse)
    params = learner.init(jax.random.key(0))
    states, w, losses = [lstm.zero_state(8, 4, jnp.float64)] * 2, W, []
    for _ in range(3):
        seen = log_and_sign(jnp.asarray(slope(w).reshape(-1)))
        states[0] = lstm.step(params["lstm1"], states[0], seen)
        states[1] = lstm.step(params["lstm2"], states[1], states[0].h)
        out = states[1].h @ params["out"]["w"] + params["out"]["b"]
        w = w + 0.1 * np.asarray(out).reshape(4, 2)
        losses.append(np.mean(np.square(X @ w - Y)))
    (value, metrics), _ = descended(learner, params)
    np.testing.assert_allclose(value, np.mean(losses), rtol=1e-5)  # float32 weights
    np.testing.assert_allclose(metrics["loss"], query_loss(w), rtol=1e-5)


def test_lstm_meta_learner_starts_as_nearly_gradient_descent():
    learner = jm.lstm_meta_learner(MODEL, inner_lr=0.1, **OPTIONS)
    params = learner.init(jax.random.key(0))
    gates = {"w": jnp.zeros(22), "b": jnp.asarray(-np.log(9))}  # sigmoid: 0.1
    forget = {"w": jnp.zeros(22), "b": jnp.asarray(np.log(99))}  # 0.99
    phi = params.phi | {"input": gates, "forget": forget}
    w = W
    for _ in range(3):
        w = 0.99 * w - 0.1 * slope(w)
    close(learner.adapt(params._replace(phi=phi), TASK.support)["kernel"], w)


def test_lstm_meta_learner_keeps_the_models_precision():
    """float32 parameters under x64, as Flax makes them."""
    learner = jm.lstm_meta_learner(jm.models.mlp(), loss=jm.losses.mse, hidden=3)
    params = learner.init(jax.random.key(0))
    task = jm.tasks.sinusoid().sample(jax.random.key(1))
    adapted = learner.adapt(params, task.support)
    assert {w.dtype for w in jax.tree.leaves(adapted)} == {jnp.dtype(jnp.float32)}


def test_a_learned_optimiser_takes_half_precision():
    phi = jm.learned_optimizer(jm.models.mlp(), hidden=3).init(jax.random.key(0))
    rule, w = jm.lstm_optimizer(phi), jnp.ones(3, jnp.bfloat16)
    updates, state = rule.update(w, rule.init(w))
    assert updates.dtype == jnp.bfloat16
    assert jax.eval_shape(lambda: state) == jax.eval_shape(lambda: rule.init(w))


def test_leo_is_its_equations(blobs):
    """Means without a key; pairs, classes and steps as loops.

    As in the authors' code each of the 2 shots of a class has a code and a classifier of
    its own, the classifier of a class is their mean, and losses are summed.
    """
    task = jm.tasks.episodes(blobs, 3, 2, 4).sample(jax.random.key(0))
    task = jax.tree.map(lambda a: a.astype(jnp.float64) if a.ndim == 2 else a, task)
    identity = jm.Model(lambda key: (), lambda p, x: x)
    learner = jm.leo(
        identity, ways=3, features=6, latent=5, inner_lr=0.3, tuning_lr=0.2,
        inner_steps=2, tuning_steps=2,
    )  # fmt: skip
    params = learner.init(jax.random.key(1))
    x, y = (np.asarray(a, float if a.ndim == 2 else int) for a in task.support[:2])
    encoder, decoder = (np.asarray(a, float) for a in (params.encoder, params.decoder))
    relation = [np.asarray(a, float) for a in params.relation]

    def related(a, b):
        out = np.concatenate([a, b])
        for layer in relation[:-1]:
            out = np.maximum(out @ layer, 0)
        return out @ relation[-1]

    codes = x @ encoder
    z = np.array(
        [
            np.mean([related(a, b) for a in codes[y == n] for b in codes], axis=0)[:5]
            for n in range(3)
        ]
    )

    def classifier_slopes(each):  # [6, 6], of the sum of the losses of 6 examples
        w = np.stack([each[y == n].mean(axis=0) for n in range(3)])
        p = np.exp(x @ w.T) / np.exp(x @ w.T).sum(1, keepdims=True)
        return ((p - np.eye(3)[y]).T @ x / 2)[y]

    each = z[y]
    for _ in range(2):
        each = each - 0.3 * classifier_slopes(each @ decoder[:, :6]) @ decoder[:, :6].T
    each = each @ decoder[:, :6]
    for _ in range(2):
        each = each - 0.2 * classifier_slopes(each)
    w = np.stack([each[y == n].mean(axis=0) for n in range(3)])
    np.testing.assert_allclose(
        learner.adapt(params, task.support).w, w, rtol=1e-4, atol=1e-6
    )
    # with a key it samples
    a, b = (learner.adapt(params, task.support, jax.random.key(k)).w for k in (0, 1))
    assert jnp.abs(a - b).max() > 1e-3
    with pytest.raises(ValueError, match=r"give the learner features=6"):
        jm.leo(identity, ways=3, features=7).adapt(params, task.support)


@pytest.mark.parametrize("key", [None, jax.random.key(2)])
def test_a_class_without_examples_is_no_part_of_leo(blobs, key):
    """Three classes of four have examples: as if there were three, probability 0."""
    task = jm.tasks.episodes(blobs, 3, 2, 4).sample(jax.random.key(0))
    make = lambda ways: jm.leo(jm.models.mlp(6, 8, (16,)), ways=ways, features=8)
    params = make(3).init(jax.random.key(1))
    three, four = (
        make(n).predict(make(n).adapt(params, task.support), task.query.x)
        for n in (3, 4)
    )
    assert np.isneginf(four[:, 3]).all()
    np.testing.assert_allclose(four[:, :3], three, rtol=1e-6)
    # and so in training, its derivative and its noise included
    loss = lambda p: make(4).loss(p, task, key)[0]
    value, slopes = jax.jit(jax.value_and_grad(loss))(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((value, slopes)))
    if key is None:
        theirs = jax.grad(lambda p: make(3).loss(p, task)[0])(params)
        jax.tree.map(lambda a, b: close(a, b), slopes, theirs)


def test_leo_learns_a_rate_for_each_dimension(blobs):
    """Twice the rate of one dimension: twice its first step, and no other's."""
    task = jm.tasks.episodes(blobs, 3, 2, 4).sample(jax.random.key(0))
    learner = jm.leo(
        jm.models.mlp(6, 8, (16,)), ways=3, features=8, inner_steps=0, tuning_steps=1
    )
    params = learner.init(jax.random.key(1))
    assert params.log_alpha.shape == (64,) and params.log_gamma.shape == (8,)
    w = lambda log_gamma: (
        learner.adapt(params._replace(log_gamma=log_gamma), task.support).w
    )
    start = w(jnp.full(8, -jnp.inf))
    step = w(params.log_gamma) - start
    double = w(params.log_gamma.at[3].add(jnp.log(2.0))) - start
    np.testing.assert_allclose(
        double, np.asarray(step) * np.where(np.arange(8) == 3, 2, 1), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            lambda: jm.boil(MODEL),
            "head: the model has no layer 'head' .* one of .*kernel",
        ),
        (lambda: jm.cavia(MODEL), "context: the model has no layer 'context'"),
        (
            lambda: jm.imaml(MODEL, penalty=0.0),
            "penalty: expected a number > 0, got 0.0",
        ),
        (lambda: jm.proximal(MODEL, penalty=-1.0), "penalty: .* got -1.0"),
        (lambda: jm.imaml(MODEL, inner_steps=0), "inner_steps: .* >= 1, got 0"),
        (lambda: jm.reptile(MODEL, inner_steps=0), "inner_steps: .* >= 1, got 0"),
        (lambda: jm.reptile(MODEL, inner_batch=0), "inner_batch: expected a whole"),
        (
            lambda: jm.bmaml(MODEL, particles=0),
            "particles: expected a whole number >= 1, got 0",
        ),
        (lambda: jm.bootstrapped(MODEL, target_steps=0), "target_steps: .* got 0"),
        (
            lambda: jm.meta_sgd(MODEL, inner_lr=(0.1, 0.01)),
            "inner_lr: expected .low, high",
        ),
        (
            lambda: jm.learned_optimizer(MODEL, last_weight=0.0),
            "last_weight: expected a number > 0",
        ),
        (
            lambda: jm.meta_sgd(MODEL, inner_lr=-0.1),
            "inner_lr: expected a number >= 0",
        ),
        (lambda: jm.lstm_meta_learner(MODEL, hidden=0), "hidden: expected a whole"),
        (lambda: jm.lstm_meta_learner(MODEL, inner_lr=1.0), r"inner_lr: .*\(0, 1\)"),
        (lambda: jm.learned_optimizer(MODEL, hidden=0), "hidden: expected a whole"),
        (
            lambda: jm.leo(MODEL, latent=0),
            "latent: expected a whole number >= 1, got 0",
        ),
        (lambda: jm.leo(MODEL, ways=1), "ways: expected a whole number >= 2, got 1"),
        (
            lambda: jm.protomaml(MODEL, ways=1),
            "ways: expected a whole number >= 2, got 1",
        ),
        (
            lambda: jm.maml_plus_plus(jm.Model(lambda k: jnp.ones(3), MODEL.apply)),
            "model: expected parameters as a dict of layers",
        ),
    ],
)
def test_wrong_arguments_get_a_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        wrong()
