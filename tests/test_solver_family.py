"""The solver and amortized families: against scikit-learn, finite differences, closed
forms, and loops over the papers' equations in numpy."""

import itertools
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import pad
from scipy.special import expit, logsumexp, softmax
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.svm import LinearSVC
from test_metric_family import IDENTITY, TASK, WAYS, close, means, outputs

import jaxmeta as jm
from jaxmeta.learners.amortized.gaussian import Gaussian
from jaxmeta.learners.amortized.latent import _divergence
from jaxmeta.solvers import logistic
from jaxmeta.solvers.svm import svm_dual

pytestmark = pytest.mark.usefixtures("x64")
X, Y = (np.asarray(a) for a in TASK.support[:2])
Q = np.asarray(TASK.query.x)


def crammer_singer(x, y, penalty):
    """scikit-learn's solution of the primal: [ways, features]."""
    machine = LinearSVC(
        multi_class="crammer_singer",
        fit_intercept=False,
        C=penalty,
        tol=1e-10,
        max_iter=1_000_000,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return machine.fit(x, y).coef_


@pytest.mark.parametrize(
    ("n", "ways", "penalty"), [(10, 5, 0.1), (15, 3, 10.0), (40, 20, 0.1)]
)
def test_svm_is_scikit_learns(n, ways, penalty):
    random = np.random.default_rng(n)
    x = random.normal(size=(n, 8))
    y = np.arange(n) % ways
    wide = np.concatenate([x, np.eye(n)], axis=1)  # the kernel K + 1
    belongs = np.eye(ways)[y]
    alpha = np.asarray(
        svm_dual(jnp.asarray(wide @ wide.T), jnp.asarray(belongs), penalty)[0]
    )
    close(alpha.sum(axis=0), np.zeros(n))  # feasible
    assert (alpha <= penalty * belongs.T + 1e-12).all()
    theirs = crammer_singer(wide, y, penalty)
    close(alpha @ wide, theirs, 1e-7)
    new = random.normal(size=(200, 8))  # and the same decisions
    ours = (new @ (alpha @ wide)[:, :8].T).argmax(axis=1)
    assert (ours == (new @ theirs[:, :8].T).argmax(axis=1)).all()
    # the dual's value is the primal's: no gap
    margins = wide @ theirs.T
    slack = (margins + 1 - belongs).max(axis=1) - margins[np.arange(n), y]
    primal = 0.5 * np.square(theirs).sum() + penalty * slack.sum()
    dual = (alpha.T * belongs).sum() - 0.5 * np.square(alpha @ wide).sum()
    close(dual, primal, 1e-8)


def test_svm_gradient_is_that_of_finite_differences():
    random = np.random.default_rng(0)
    x = random.normal(size=(12, 6))
    gram = jnp.asarray(x @ x.T + np.eye(12))
    belongs = jnp.asarray(np.eye(WAYS)[np.arange(12) % WAYS])
    weights = jnp.asarray(random.normal(size=(WAYS, 12)))
    f = lambda k: jnp.sum(jnp.sin(3 * svm_dual(k, belongs, 0.3)[0]) * weights)
    gradient = jax.grad(f)(gram)
    for seed in range(3):
        e = np.random.default_rng(seed).normal(size=gram.shape)
        e = jnp.asarray((e + e.T) * 1e-6)
        slope = (f(gram + e) - f(gram - e)) / 2
        close((gradient * e).sum(), slope, 1e-5)
        assert abs(float(slope)) > 1e-8


def test_svm_forgets_padding():
    random = np.random.default_rng(0)
    x = random.normal(size=(9, 5))
    belongs = np.eye(WAYS)[np.arange(9) % WAYS]
    gram = x @ x.T + np.eye(9)
    more = np.zeros((12, 12))
    more[:9, :9], more[9:, 9:] = gram, np.eye(3)
    padded = svm_dual(
        jnp.asarray(more), jnp.pad(jnp.asarray(belongs), ((0, 3), (0, 0))), 0.5
    )[0]
    close(padded[:, :9], svm_dual(jnp.asarray(gram), jnp.asarray(belongs), 0.5)[0])
    assert not np.asarray(padded[:, 9:]).any()


def test_metaoptnet_is_a_machine_on_features():
    learner = jm.metaoptnet(IDENTITY, ways=WAYS, penalty=0.5)
    params = learner.init(jax.random.key(0))._replace(gamma=jnp.array(2.0))
    wide = np.concatenate([X, np.eye(len(X))], axis=1)
    theirs = crammer_singer(wide, Y, 0.5)[:, : X.shape[1]]
    close(outputs(learner, params, TASK), 2 * Q @ theirs.T, 1e-6)
    learner = jm.metaoptnet(IDENTITY, ways=WAYS, head="ridge", penalty=0.5)
    w = np.linalg.solve(X.T @ X + 0.5 * np.eye(4), X.T @ np.eye(WAYS)[Y])
    close(outputs(learner, params, TASK), 2 * Q @ w)


def test_logistic_regression_is_scikit_learns():
    y = (Y == 1).astype(float)
    theirs = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-12, max_iter=10_000)
    theirs.fit(X, Y == 1)
    close(logistic(jnp.asarray(X), jnp.asarray(y), 0.5), theirs.coef_[0], 1e-5)
    learner = jm.lrd2(IDENTITY, ways=WAYS, penalty=0.5, iterations=10)
    params = learner.init(jax.random.key(0))
    close(outputs(learner, params, TASK)[:, 1], Q @ theirs.coef_[0], 1e-5)


def test_versa_averages_probabilities_over_classifiers():
    learner = jm.versa(IDENTITY, ways=WAYS, features=4, samples=3)
    params = learner.init(jax.random.key(0))
    adapted = learner.adapt(params, TASK.support, jax.random.key(1))
    assert adapted.psi.shape == (3, WAYS, 5)
    columns = np.concatenate([Q, np.ones((len(Q), 1))], axis=1)
    p = np.mean(
        [softmax(columns @ np.asarray(w).T, axis=1) for w in adapted.psi], axis=0
    )
    log_p = learner.predict(adapted, TASK.query.x)
    close(np.exp(log_p), p, 1e-6)
    # eq. 5, and the mean of q without a key
    value = -np.log(p)[np.arange(len(Q)), np.asarray(TASK.query.y)].mean()
    close(learner.loss(params, TASK, jax.random.key(1))[0], value, 1e-6)
    mean = learner.adapt(params, TASK.support).psi
    h = jnp.asarray(means(TASK))
    network = jm.models.mlp(4, 10, (4, 4), activation=jax.nn.elu)
    close(mean[0], network.apply(params.inference, h)[:, :5], 1e-6)


@pytest.mark.parametrize("add_vectors", [False, True])
def test_mann_is_the_equations_of_the_paper(add_vectors):
    hidden, slots, size, reads = 3, 8, 2, 2
    learner = jm.mann(
        IDENTITY,
        ways=WAYS,
        features=4,
        hidden=hidden,
        slots=slots,
        size=size,
        reads=reads,
        add_vectors=add_vectors,
    )
    random = np.random.default_rng(0)  # biases that are not zero, too
    params = jax.tree.map(
        lambda p: jnp.asarray(p + 0.1 * random.normal(size=p.shape)),
        learner.init(jax.random.key(0)),
    )
    p = jax.tree.map(np.asarray, params)
    dense = lambda layer, a: a @ layer["w"] + layer["b"]
    unit = lambda a: a / np.sqrt(np.square(a).sum(axis=-1, keepdims=True) + 1e-12)

    def step(state, x):
        h, c, memory, w_r, w_u, r, label = state
        row = dense(p.controller, np.concatenate([x, label, r, h]))
        i, f, o, g = np.split(row, 4)
        c = expit(f) * c + expit(i) * np.tanh(g)
        h = expit(o) * np.tanh(c)
        keys, adds = (
            np.tanh(dense(layer, h)).reshape(reads, size)
            for layer in (p.keys, p.adds or p.keys)
        )
        least = np.argsort(w_u, kind="stable")[:reads]  # eq. 6
        gate = expit(dense(p.alpha, h))[:, None]
        w_w = gate * w_r + (1 - gate) * np.eye(slots)[least]  # eq. 7
        memory = memory.copy()
        memory[least[0]] = 0
        memory = memory + w_w.T @ adds  # eq. 8
        w_r = softmax(unit(keys) @ unit(memory).T, axis=1)  # eqs. 2, 3
        w_u = 0.95 * w_u + w_r.sum(axis=0) + w_w.sum(axis=0)  # eq. 5
        r = (w_r @ memory).ravel()  # eq. 4
        logits = dense(p.head, np.concatenate([h, r]))
        return (h, c, memory, w_r, w_u, r, label), logits

    state = (
        *(np.zeros(hidden), np.zeros(hidden), np.full((slots, size), 1e-6)),
        *(np.zeros((reads, slots)), np.zeros(slots)),
        *(np.zeros(reads * size), np.zeros(WAYS)),
    )
    foretold = []
    for x, y in zip(X, Y, strict=True):
        after, logits = step(state, x)
        state = (*after[:-1], np.eye(WAYS)[y])
        foretold.append(logits)
    expected = [step(state, q)[1] for q in Q]  # each query is the next step
    close(outputs(learner, params, TASK), expected, 1e-9)
    value = log_loss(TASK.query.y, softmax(expected, axis=1))
    close(learner.loss(params, TASK)[0], value, 1e-9)
    value += log_loss(Y, softmax(foretold, axis=1))
    close(learner.objective(params, TASK, None, 0)[0], value, 1e-9)


def test_snail_is_a_causal_network_over_the_whole_sequence():
    """What it shares between queries is what each sequence, read alone, gives."""
    learner = jm.snail(IDENTITY, ways=WAYS, features=4, length=6, scale=0.05)
    params = jax.tree.map(jnp.float64, learner.init(jax.random.key(0)))
    p = jax.tree.map(np.asarray, params)
    dense = lambda layer, a: a @ layer["w"] + layer["b"]

    def alone(q):
        labels = np.concatenate([np.eye(WAYS)[Y], np.zeros((1, WAYS))])
        h = np.concatenate([np.concatenate([X, q[None]]), labels], axis=1)
        for layer in p.layers:
            if isinstance(layer, dict):
                queries, keys, values = (
                    dense(layer[n], h) for n in ("query", "key", "value")
                )
                scores = queries @ keys.T / keys.shape[1] ** 0.5
                scores = np.where(np.tri(len(h)) > 0, scores, -np.inf)
                # the support's rows see the past and themselves, as the query's do
                read = softmax(scores, axis=1) @ values
                h = np.concatenate([h, read], axis=1)
                continue
            for block, dilation in zip(layer, (2, 4, 8), strict=True):
                past = np.concatenate([np.zeros((dilation, h.shape[1])), h])[: len(h)]
                xf, xg = np.split(dense(block, np.concatenate([past, h], 1)), 2, axis=1)
                h = np.concatenate([h, np.tanh(xf) * expit(xg)], axis=1)
        return dense(p.head, h[-1:])[0]

    expected = [alone(q) for q in Q]
    close(outputs(learner, params, TASK), expected, 1e-9)


def curve(seed=0, n=5, m=7):
    """A regression task in one dimension."""
    random = np.random.default_rng(seed)
    batch = lambda k: jm.Batch(*(jnp.asarray(random.normal(size=(k, 1))) for _ in "xy"))
    return jm.Task(batch(n), batch(m))


def test_divergence_is_an_integral():
    q, p = (
        Gaussian(np.array([0.3]), np.array([0.5])),
        Gaussian(np.array([-1.0]), np.array([0.8])),
    )
    grid = np.linspace(-8, 8, 200_001)
    density = norm.pdf(grid, 0.3, 0.5)
    logs = norm.logpdf(grid, 0.3, 0.5) - norm.logpdf(grid, -1.0, 0.8)
    close(_divergence(q, p), (density * logs).sum() * (grid[1] - grid[0]), 1e-6)


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
    params = jax.tree.map(jnp.float64, learner.init(jax.random.key(0)))
    adapted = learner.adapt(params, task.support, jax.random.key(1))
    each = [
        learner.predict(adapted._replace(z=z[None]), task.query.x) for z in adapted.z
    ]
    mean = np.mean([g.mean for g in each], axis=0)
    mixed = learner.predict(adapted, task.query.x)
    close(mixed.mean, mean)
    square = np.mean([np.square(g.mean) + np.square(g.std) for g in each], axis=0)
    close(mixed.std, np.sqrt(square - mean**2))
    logs = [norm.logpdf(task.query.y, g.mean, g.std)[:, 0] for g in each]
    value = (logsumexp(logs, axis=0) - np.log(5)).mean()
    metrics = learner.loss(params, task, jax.random.key(1))[1]
    close(metrics["log_likelihood"], value)
    # one point that is also the support: q(z | T) = q(z | C), so the bound has no
    # divergence and is one sample's likelihood
    one = jm.Task(task.support, task.support)
    bound = learner.objective(params, one, None, 0)[0]
    at_mean = learner.predict(learner.adapt(params, one.support), one.query.x)
    close(bound, -norm.logpdf(one.query.y, at_mean.mean, at_mean.std).mean())


def test_more_samples_take_the_bound_to_the_marginal_likelihood():
    """Which is an integral over the one dimension of z, p(z) being q(z | C)."""
    latent = jm.models.set_encoder(2, 2, hidden=(4,), after=(4,))
    nets = jm.models.mlp(2, 1, (4,)), latent, jm.models.mlp(3, 2, (4,))
    few, many = (jm.neural_process(*nets, train_samples=k) for k in (1, 20_000))
    task = curve()
    params = jax.tree.map(jnp.float64, few.init(jax.random.key(3)))
    mean, omega = latent.apply(params.latent, jnp.concatenate(task.support[:2], axis=1))
    std = 0.1 + 0.9 * expit(omega)
    z = jnp.linspace(mean - 8 * std, mean + 8 * std, 2001)
    x, y = (jnp.concatenate([getattr(b, n) for b in task]) for n in "xy")
    adapted = few.adapt(params, task.support)
    at = jax.vmap(lambda z: few.predict(adapted._replace(z=z[None, None]), x))(z)
    logs = norm.logpdf(z, mean, std) + norm.logpdf(y[None], *at).sum((1, 2))
    marginal = (logsumexp(logs) + np.log(z[1] - z[0])) / len(y)

    def bound(learner, key):
        return -learner.objective(params, task, key, 0)[0]

    close(jax.jit(partial(bound, many))(jax.random.key(0)), marginal, 1e-3)
    draws = jax.vmap(partial(bound, few))(jax.random.split(jax.random.key(1), 50))
    assert np.mean(draws) < marginal - 1e-3


@pytest.mark.parametrize(
    ("name", "samples"),
    [("cnp", None), *itertools.product(["neural_process", "anp"], [1, 4])],
)
def test_masked_points_change_no_bound(name, samples):
    """As in the contract, but of what training descends."""
    if name == "cnp":
        learner = jm.cnp(jm.models.mlp(2, 4, (4,)), jm.models.mlp(5, 2, (4,)))
    else:
        learner = processes(train_samples=samples)[name]
    task = curve()
    padded = jm.Task(*(pad(batch, 3, np.nan) for batch in task))
    params = jax.tree.map(jnp.float64, learner.init(jax.random.key(0)))
    loss = jax.jit(
        lambda task: learner.objective(params, task, jax.random.key(1), 0)[0]
    )
    close(loss(padded), loss(task))


@pytest.mark.parametrize("name", ["tnpd", "in_context", "in_context_classes"])
def test_transformers_read_sets(name):
    """The support's order does not matter, and queries do not see each other."""
    small = {"width": 8, "layers": 2, "heads": 2, "hidden": 8}
    learner, task = {
        "tnpd": (jm.tnpd(**small), curve()),
        "in_context": (jm.in_context(ways=None, x_dims=1, **small), curve()),
        "in_context_classes": (jm.in_context(ways=WAYS, x_dims=4, **small), TASK),
    }[name]
    params = jax.tree.map(jnp.float64, learner.init(jax.random.key(0)))
    first = lambda out: out.mean if isinstance(out, Gaussian) else out
    predict = jax.jit(lambda s, x: first(learner.predict(learner.adapt(params, s), x)))
    plain = predict(task.support, task.query.x)
    turned = jax.tree.map(lambda a: a[::-1], task.support)
    close(predict(turned, task.query.x), plain)
    for i in (0, 3):
        close(predict(task.support, task.query.x[i : i + 1])[0], plain[i])
    other = task.support._replace(x=task.support.x.at[0].add(1.0))
    assert float(jnp.abs(predict(other, task.query.x) - plain).max()) > 1e-6


def test_in_context_learning_nears_the_best_rule():
    """Labels are the sign of one column: trained on that, it reads new tables."""
    import optax

    sampler = jm.tasks.tables(
        columns=2, ways=2, shots=20, queries=10, hidden=1, noise=0.0
    )
    learner = jm.in_context(ways=2, x_dims=2, width=16, layers=2, heads=2, hidden=32)
    state = jm.fit(
        learner, sampler, optax.adam(3e-3), steps=600, key=jax.random.key(0),
        tasks_per_step=16, chunk=200,
    )  # fmt: skip
    report = jm.evaluate(
        learner, state.params, sampler, num_tasks=300, key=jax.random.key(1)
    )
    neighbour = jm.evaluate(
        jm.nearest_neighbour(2),
        (),
        sampler,
        num_tasks=300,
        key=jax.random.key(1),
    )
    ours, theirs = (r.per_task["accuracy"] for r in (report, neighbour))
    assert ours.mean() > 0.9 and ours.mean() > theirs.mean()  # on the same tables


BAD = [
    (lambda: jm.metaoptnet(IDENTITY, head="tree"), "head: expected one of svm, ridge"),
    (lambda: jm.metaoptnet(IDENTITY, penalty=0.0), "penalty: expected a number > 0, got 0"),
    (lambda: jm.metaoptnet(IDENTITY, diagonal=0.0), "diagonal: expected a number > 0"),
    (lambda: jm.lrd2(IDENTITY, penalty=-1.0), "penalty: expected a number > 0, got -1"),
    (lambda: jm.r2d2(IDENTITY, penalty=0.0), "penalty: expected a number > 0, got 0"),
    (lambda: jm.versa(IDENTITY, samples=0), "samples: expected a whole number >= 1"),
    (lambda: jm.mann(IDENTITY, gamma=1.5), r"gamma: .*\[0, 1\], got 1.5"),
    (lambda: jm.mann(IDENTITY, slots=2, reads=3), "reads: .* in 1..2, got 3"),
    (lambda: jm.snail(IDENTITY, scale=0.0), "scale: expected a number > 0"),
    (lambda: jm.neural_process(IDENTITY, IDENTITY, IDENTITY, min_std=1.0), "min_std"),
    (lambda: jm.anp(*[IDENTITY] * 4, samples=0), "samples: expected a whole number"),
    (lambda: jm.anp(*[IDENTITY] * 4, train_samples=0), "train_samples: expected a whole"),
    (lambda: jm.tnpd(width=10, heads=4), "a width that heads divides, got 10 and 4"),
    (lambda: jm.in_context(width=10, heads=4), "a width that heads divides"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), BAD)
def test_bad_arguments_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_context_that_does_not_fit_is_refused():
    for learner, sentence in (
        (
            jm.mann(IDENTITY, ways=WAYS, features=4, hidden=2, slots=4),
            "slots: .* 6 rows",
        ),
        (jm.snail(IDENTITY, ways=WAYS, features=4, length=5), "length: .* has 6 rows"),
        (
            jm.in_context(ways=WAYS, x_dims=3),
            "x_dims: expected inputs of 3 columns, got 4",
        ),
    ):
        params = learner.init(jax.random.key(0))
        with pytest.raises(ValueError, match=sentence):
            learner.adapt(params, TASK.support)
