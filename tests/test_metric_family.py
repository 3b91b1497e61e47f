"""The metric and transductive families against their papers' equations, in numpy, and
against numbers that other libraries make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import naive_attention
from scipy.optimize import linprog
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading

import jaxmeta as jm
from jaxmeta.learners.metric.deepemd import similarity
from jaxmeta.learners.metric.soft_kmeans import _statistics
from jaxmeta.learners.transductive.graph import neighbours, rectified
from jaxmeta.learners.transductive.label_propagation import propagate
from jaxmeta.learners.transductive.pt_map import power_transform
from jaxmeta.solvers import sinkhorn

pytestmark = pytest.mark.usefixtures("x64")
WAYS = 3
IDENTITY = jm.models.from_functions(lambda key: (), lambda params, x: x)


def close(a, b, tolerance=1e-10):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=1e-10)


def points(seed=0, shots=2, queries=4, features=4):
    """A task of points around 3 centres: x [n, features] in float64."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(WAYS, features))

    def batch(each):
        y = np.repeat(np.arange(WAYS), each)
        return jm.Batch(
            jnp.asarray(centres[y] + 0.5 * random.normal(size=(len(y), features))),
            jnp.asarray(y),
        )

    return jm.Task(batch(shots), batch(queries))


def unit(a):
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def means(task):
    x, y = map(np.asarray, task.support[:2])
    return np.stack([x[y == k].mean(axis=0) for k in range(WAYS)])


def outputs(learner, params, task, key=None):
    return learner.predict(learner.adapt(params, task.support, key), task.query.x)


def distances(a, b):
    return np.square(np.asarray(a)[:, None] - np.asarray(b)[None]).sum(axis=-1)


with jax.enable_x64(True):
    TASK = points()


def test_cosine_prototypes():
    learner = jm.protonet(IDENTITY, ways=WAYS, distance="cosine", scale=7.0)
    close(
        outputs(learner, (), TASK),
        7 * unit(np.asarray(TASK.query.x)) @ unit(means(TASK)).T,
    )
    learner = jm.meta_baseline(IDENTITY, ways=WAYS, temperature=7.0)
    params = learner.init(jax.random.key(0))
    close(
        outputs(learner, params, TASK),
        7 * unit(np.asarray(TASK.query.x)) @ unit(means(TASK)).T,
        1e-7,
    )


def test_matching_is_attention_over_labels():
    learner = jm.matching(IDENTITY, ways=WAYS, scale=3.0)
    params = learner.init(jax.random.key(0))
    x, y = map(np.asarray, TASK.support[:2])
    a = softmax(3 * unit(np.asarray(TASK.query.x)) @ unit(x).T, axis=1)  # eq. 1
    close(np.exp(outputs(learner, params, TASK)), a @ np.eye(WAYS)[y])


def test_full_context_embeddings_are_the_loops_of_the_paper():
    learner = jm.matching(
        IDENTITY, ways=WAYS, features=4, full_context=True, processing_steps=3
    )
    params = jax.tree.map(jnp.float64, learner.init(jax.random.key(0)))
    x, y = map(np.asarray, TASK.support[:2])

    def cell(weights, h, c, row):
        i, f, o, g = np.split(np.concatenate([row, h]) @ weights["w"] + weights["b"], 4)
        c = expit(f) * c + expit(i) * np.tanh(g)
        return expit(o) * np.tanh(c), c

    def read(weights, rows):
        h = c = np.zeros(4)
        states = []
        for row in rows:
            h, c = cell(weights, h, c, row)
            states.append(h)
        return np.stack(states)

    context = jax.tree.map(np.asarray, params.context)
    g = read(context["forward"], x) + read(context["backward"], x[::-1])[::-1] + x
    expected = []
    for z in np.asarray(TASK.query.x):
        h, c = z, np.zeros(4)
        for _ in range(3):
            r = softmax(g @ h) @ g
            new, c = cell(context["attend"], h, c, np.concatenate([z, r]))
            h = new + z
        a = softmax(10 * unit(h) @ unit(g).T)
        expected.append(a @ np.eye(WAYS)[y])
    close(np.exp(outputs(learner, params, TASK)), expected)


def test_relation_scores_every_pair_and_sums_shots():
    shape = lambda params, x: jnp.reshape(x, (len(x), 2, 2))
    maps = jm.models.from_functions(lambda key: (), shape)
    module = jm.models.mlp((2, 4), 1, (3,))
    learner = jm.relation(maps, module, ways=WAYS)
    params = learner.init(jax.random.key(0))
    x, y = map(np.asarray, TASK.support[:2])
    expected = np.zeros((len(TASK.query.x), WAYS))
    for i, q in enumerate(np.asarray(TASK.query.x).reshape(-1, 2, 2)):
        for k in range(WAYS):
            c = x[y == k].sum(axis=0).reshape(2, 2)
            pair = np.concatenate([c, q], axis=-1)[None]
            expected[i, k] = module.apply(params.relation, jnp.asarray(pair))[0, 0]
    close(outputs(learner, params, TASK), expected)
    error = np.square(expit(expected) - np.eye(WAYS)[np.asarray(TASK.query.y)]).mean()
    close(learner.loss(params, TASK)[0], error)  # eq. 2


def test_siamese_judges_pairs():
    learner = jm.siamese(IDENTITY, ways=WAYS, features=4)
    params = learner.init(jax.random.key(0))._replace(
        alpha=jnp.array([-1.0, -0.5, 0.2, -0.1]), bias=jnp.array(0.3)
    )
    x, y = map(np.asarray, TASK.support[:2])
    q, labels = map(np.asarray, TASK.query[:2])
    logits = np.abs(q[:, None] - x[None]) @ np.asarray(params.alpha) + 0.3
    best = np.stack([logits[:, y == k].max(axis=1) for k in range(WAYS)], axis=1)
    close(outputs(learner, params, TASK), best)
    same = labels[:, None] == y[None]
    each = -np.where(same, np.log(expit(logits)), np.log(expit(-logits)))
    balanced = (each[same].mean() + each[~same].mean()) / 2  # as many of each a query
    close(learner.loss(params, TASK)[0], balanced)


@pytest.mark.parametrize("transform", ["UN", "L2N", "CL2N"])
def test_simpleshot_transforms_then_compares(transform):
    learner = jm.simpleshot(
        IDENTITY, classes=4, ways=WAYS, features=4, transform=transform
    )
    m = np.array([0.3, -0.2, 0.1, 0.5])
    params = learner.init(jax.random.key(0))._replace(m=jnp.asarray(m))
    change = {"UN": lambda z: z, "L2N": unit, "CL2N": lambda z: unit(z - m)}[transform]
    x, y = change(np.asarray(TASK.support.x)), np.asarray(TASK.support.y)
    c = np.stack([x[y == k].mean(axis=0) for k in range(WAYS)])
    expected = -distances(change(np.asarray(TASK.query.x)), c)
    close(outputs(learner, params, TASK), expected)


def test_training_on_classes_is_softmax_regression():
    learner = jm.simpleshot(IDENTITY, classes=WAYS, ways=WAYS, features=4)
    params = jax.tree.map(jnp.float64, learner.init(jax.random.key(0)))
    loss = lambda p: learner.objective(p, TASK, None, 0)[0]
    value, gradient = jax.value_and_grad(loss)(params)
    x, y = map(np.asarray, TASK.query[:2])
    log_p = log_softmax(x @ np.asarray(params.w) + np.asarray(params.b), axis=1)
    close(value, -log_p[np.arange(len(y)), y].mean())
    assert not np.asarray(gradient.m).any()  # the mean is no matter of descent
    close(gradient.w, x.T @ (np.exp(log_p) - np.eye(WAYS)[y]) / len(y))


def test_baseline_ends_where_scikit_learn_does():
    """Steps with weight decay: the same penalised logistic regression."""
    import optax

    def decayed(rate):
        return optax.chain(optax.add_decayed_weights(0.1), optax.sgd(rate))

    learner = jm.baseline(
        IDENTITY,
        classes=4,
        ways=WAYS,
        features=4,
        inner_lr=0.5,
        inner_steps=3000,
        rule=decayed,
    )
    params = jax.tree.map(jnp.float64, learner.init(jax.random.key(0)))
    adapted = learner.adapt(params, TASK.support)
    x, y = map(np.asarray, TASK.support[:2])
    columns = np.concatenate([x, np.ones((len(x), 1))], axis=1)  # penalised intercept
    theirs = LogisticRegression(
        C=1 / (0.1 * len(x)), fit_intercept=False, tol=1e-12, max_iter=100_000
    ).fit(columns, y)
    w = np.concatenate([adapted.head["w"], adapted.head["b"][None]])
    close(w, theirs.coef_.T, 1e-5)


def test_baseline_plus_plus_starts_from_the_class_means():
    make = lambda steps: jm.baseline_plus_plus(
        IDENTITY, classes=4, ways=WAYS, features=4, inner_steps=steps
    )
    params = make(0).init(jax.random.key(0))
    expected = 10 * unit(np.asarray(TASK.query.x)) @ unit(means(TASK)).T
    close(outputs(make(0), params, TASK), expected)
    fit = lambda steps: make(steps).loss(params, TASK._replace(query=TASK.support))[0]
    assert fit(20) < fit(0)


def test_feat_lets_prototypes_attend():
    learner = jm.feat(IDENTITY, ways=WAYS, features=4, temperature=2.0, balance=0.5)
    params = jax.tree.map(jnp.float64, learner.init(jax.random.key(0)))

    def transform(z, see):
        layer = jax.tree.map(np.asarray, params.transformer["attention"])
        dense = lambda name, a: a @ layer[name]["kernel"] + layer[name]["bias"]
        read = naive_attention(*(dense(n, z) for n in ("query", "key", "value")), see)
        y = z + dense("out", read)
        y = y - y.mean(axis=1, keepdims=True)
        return y / np.sqrt(y.var(axis=1, keepdims=True) + 1e-6)

    c = transform(means(TASK), np.ones((WAYS, WAYS), bool))
    q, labels = map(np.asarray, TASK.query[:2])
    logits = -distances(q, c) / 2
    close(outputs(learner, params, TASK), logits)
    z = np.concatenate([np.asarray(TASK.support.x), q])
    y = np.concatenate([np.asarray(TASK.support.y), labels])
    each = transform(z, y[:, None] == y[None])
    centres = np.stack([each[y == k].mean(axis=0) for k in range(WAYS)])
    cross = lambda s, y: -log_softmax(s, axis=1)[np.arange(len(y)), y].mean()
    expected = cross(logits, labels) + 0.5 * cross(-distances(z, centres) / 2, y)
    close(learner.objective(params, TASK, None, 0)[0], expected)
    close(learner.loss(params, TASK)[0], cross(logits, labels))


def transport(cost, rows, columns):
    """The linear program, by scipy."""
    n, m = cost.shape
    sums = np.zeros((n + m, n * m))
    for i in range(n):
        sums[i, i * m : (i + 1) * m] = 1
    for j in range(m):
        sums[n + j, j::m] = 1
    solved = linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([rows, columns]))
    return solved.x.reshape(n, m)


def test_sinkhorn_is_the_linear_program():
    random = np.random.default_rng(0)
    cost = random.random((4, 5))
    rows, columns = (softmax(random.normal(size=n)) for n in (4, 5))
    plan = sinkhorn(
        *map(jnp.asarray, (cost, rows, columns)), regularization=2e-3, iterations=3000
    )
    expected = transport(cost, rows, columns)
    close(plan.sum(axis=1), rows, 1e-6)
    close(plan.sum(axis=0), columns, 1e-6)
    np.testing.assert_allclose(plan, expected, atol=1e-4)
    # a mass of zero is padding, whatever its costs
    padded = sinkhorn(
        jnp.pad(jnp.asarray(cost), ((0, 1), (0, 2)), constant_values=-7.0),
        jnp.append(rows, 0.0),
        jnp.concatenate([columns, jnp.zeros(2)]),
        regularization=2e-3,
        iterations=3000,
    )
    close(padded[:4, :5], plan)
    assert float(jnp.abs(padded).sum()) == pytest.approx(1.0)


def test_deepemd_matches_parts_at_least_cost():
    random = np.random.default_rng(1)
    u, v = 1 + random.normal(size=(2, 4, 3))
    cosine = np.zeros((4, 4))  # of features without the mean over their channels
    for i, j in np.ndindex(4, 4):
        a, b = u[i] - u[i].mean(), v[j] - v[j].mean()
        cosine[i, j] = a @ b / np.sqrt(a @ a * (b @ b))
    masses = lambda a, b: (s := np.maximum(a @ b.mean(axis=0), 0) + 1e-3) / s.sum()
    plan = transport(1 - cosine, masses(u, v), masses(v, u))
    ours = similarity(jnp.asarray(u), jnp.asarray(v), 2e-3, 3000)
    np.testing.assert_allclose(ours, (cosine * plan).sum(), atol=1e-3)


def test_soft_kmeans_step_by_hand():
    """Prototypes at 0 and 4; an unlabelled example at 1 belongs e^-1 : e^-9 to them."""
    x = jnp.array([[0.0], [4.0], [1.0]])
    support = jm.Batch(x, jnp.array([0, 1, -1]))
    learner = jm.soft_kmeans(IDENTITY, ways=2)
    adapted = learner.adapt(learner.init(jax.random.key(0)), support)
    z = np.exp(-1) / (np.exp(-1) + np.exp(-9))  # 0.99966
    close(adapted.p, [[z / (1 + z)], [(4 + 1 - z) / (2 - z)]])
    assert z == pytest.approx(0.99966, abs=1e-5)

    # a cluster at the origin, of length r = 2: logit -1 / 4 - log 2 for the example
    learner = jm.soft_kmeans(IDENTITY, ways=2, variant="cluster")
    params = learner.init(jax.random.key(0))._replace(log_r=jnp.log(2.0))
    weights = softmax([-1.0, -9.0, -1 / 4 - np.log(2)])[:2]
    expected = [[weights[0] / (1 + weights[0])], [(4 + weights[1]) / (1 + weights[1])]]
    close(learner.adapt(params, support).p, expected)


def test_masked_soft_kmeans_leaves_the_far_ones_out():
    random = np.random.default_rng(0)
    near, far = 0.1 * random.normal(size=(4, 1)), np.array([[30.0], [-25.0]])
    x = jnp.asarray(np.concatenate([[[0.0]], [[2.0]], near, far]))
    support = jm.Batch(x, jnp.array([0, 1] + [-1] * 6))
    learner = jm.soft_kmeans(IDENTITY, ways=2, variant="masked")
    params = jax.tree.map(jnp.float64, learner.init(jax.random.key(0)))
    # beta = gamma = softplus(b), whatever the statistics
    head = {"kernel": jnp.zeros((20, 2)), "bias": jnp.array([0.0, 5.0])}
    params = params._replace(network=params.network | {"head": head})
    c = learner.adapt(params, support).p

    u = np.asarray(x)[2:]
    d = distances(u, [[0.0], [2.0]])
    z = softmax(-d, axis=1)
    beta, gamma = np.log(2), np.log1p(np.exp(5.0))
    z = z * expit(-gamma * (d / d.mean(axis=0) - beta))  # eqs. 7, 10
    expected = (z.T @ u + [[0.0], [2.0]]) / (1 + z.sum(axis=0))[:, None]
    close(c, expected)
    said = _statistics(jnp.asarray(d), jnp.ones(6))
    apart = d - d.mean(axis=0)
    close(said[:, 2], d.var(axis=0))
    close(said[:, 3], ((apart / np.sqrt(d.var(axis=0) + 1e-6)) ** 3).mean(axis=0))


def test_label_propagation_is_scikit_learns_label_spreading():
    random = np.random.default_rng(0)
    x = random.normal(size=(12, 3))
    w = np.exp(-distances(x, x) / 2) * (1 - np.eye(12))
    y = np.array([0, 1, 2, *[-1] * 9])
    theirs = LabelSpreading(
        kernel=lambda a, b: w + np.eye(12), alpha=0.8, tol=1e-14, max_iter=10_000
    ).fit(x, y)
    ours = propagate(
        jnp.asarray(w),
        jnp.asarray(np.eye(3)[np.maximum(y, 0)] * (y >= 0)[:, None]),
        0.8,
    )
    ours = ours / ours.sum(axis=1, keepdims=True)
    close(ours, theirs.label_distributions_, 1e-6)


def test_label_propagation_is_trained_on_support_and_queries_together():
    """In numpy, from the graph on: an unlabelled and a padded example are not judged."""
    support, query = TASK
    random = np.random.default_rng(0)
    more = jnp.asarray(random.normal(size=(2, 4)))
    support = jm.Batch(
        jnp.concatenate([support.x, more]),
        jnp.concatenate([support.y, jnp.array([-1, 0])]),
        jnp.array([1.0] * 7 + [0.0]),
    )
    task = jm.Task(support, query)
    learner = jm.label_propagation(
        IDENTITY, ways=WAYS, features=4, alpha=0.8, neighbours_of=30
    )
    params = jax.tree.map(jnp.float64, learner.init(jax.random.key(0)))
    x = np.concatenate([support.x[:7], query.x])
    graph = jm.models.mlp(4, 1, (8,))
    x = x * np.exp(-np.asarray(graph.apply(params.graph, jnp.asarray(x))))
    w = np.exp(-distances(x, x) / 8) * (1 - np.eye(len(x)))
    root = np.diag(w.sum(axis=1) ** -0.5)
    y = np.zeros((len(x), WAYS))
    y[np.arange(6), np.asarray(support.y[:6])] = 1
    f = np.linalg.solve(np.eye(len(x)) - 0.8 * root @ w @ root, y)
    labels = np.concatenate([support.y, query.y])[np.r_[:7, 8 : len(x) + 1]]
    each = -log_softmax(f, axis=1)[np.arange(len(x)), labels]
    judged = np.r_[:6, 7 : len(x)]
    trained, metrics = learner.objective(params, task, None, 0)
    close(trained, each[judged].mean())
    reported, said = learner.loss(params, task)
    close(reported, each[7:].mean())
    close(metrics["loss"], reported)
    close(metrics["accuracy"], said["accuracy"])


def test_bd_cspn_rectifies_prototypes():
    z, q = np.asarray(TASK.support.x), np.asarray(TASK.query.x)
    y = np.asarray(TASK.support.y)
    shifted = q + z.mean(axis=0) - q.mean(axis=0)  # eq. 4
    p = means(TASK)
    pseudo = (unit(shifted) @ unit(p).T).argmax(axis=1)
    expected = []
    for k in range(WAYS):
        x = np.concatenate([z[y == k], shifted[pseudo == k]])
        weights = softmax(10 * unit(x) @ unit(p[k]))
        expected.append(weights @ x)
    weights = jnp.ones(len(q))
    found = rectified(*map(jnp.asarray, (z, np.eye(WAYS)[y], q)), weights, 10.0)
    close(found[0], expected, 1e-9)
    close(found[1], shifted)


def test_laplacian_shot_is_its_algorithm():
    learner = jm.laplacian_shot(
        IDENTITY, classes=4, ways=WAYS, features=4, iterations=3, neighbours_of=2
    )
    params = learner.init(jax.random.key(0))
    z, q = unit(np.asarray(TASK.support.x)), unit(np.asarray(TASK.query.x))
    belongs = jnp.asarray(np.eye(WAYS)[np.asarray(TASK.support.y)])
    m, q, _ = rectified(jnp.asarray(z), belongs, jnp.asarray(q), jnp.ones(len(q)), 10.0)
    m, q = unit(np.asarray(m)), unit(np.asarray(q))
    near = distances(q, q) + np.diag([np.inf] * len(q))
    w = np.zeros_like(near)
    for i, row in enumerate(near):
        w[i, np.argsort(row)[:2]] = 1
    close(neighbours(jnp.asarray(distances(q, q)), jnp.ones(len(q)), 2), w)
    a = distances(q, m)
    y = softmax(-a, axis=1)
    for _ in range(3):
        logits = -a + 0.7 * w @ y
        y = softmax(logits, axis=1)
    close(outputs(learner, params, TASK), logits, 1e-8)


def test_pt_map_balances_the_queries():
    learner = jm.pt_map(IDENTITY, classes=4, ways=WAYS, features=4, iterations=5)
    params = learner.init(jax.random.key(0))
    p = np.exp(np.asarray(outputs(learner, params, TASK)))
    close(p.sum(axis=0), [4, 4, 4], 1e-6)  # 12 queries, 3 classes: exactly, by Sinkhorn
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=0.05)
    f = power_transform(jnp.array([[4.0, -9.0]]), 0.5, eps=0.0)
    close(f, [[2 / 13**0.5, -3 / 13**0.5]])
    # without iterations of the centres: the assignment to the support's means
    still = jm.pt_map(
        IDENTITY, classes=4, ways=WAYS, features=4, iterations=1, alpha=1e-12
    )
    change = lambda a: unit(np.sign(a) * (np.abs(a) + 1e-6) ** 0.5)
    z, q = change(np.asarray(TASK.support.x)), change(np.asarray(TASK.query.x))
    z, q = unit(z - z.mean(axis=0)), unit(q - q.mean(axis=0))
    c = np.stack([z[np.asarray(TASK.support.y) == k].mean(axis=0) for k in range(WAYS)])
    plan = np.exp(-10 * distances(q, c))
    for _ in range(20):
        plan = plan / plan.sum(axis=1, keepdims=True)
        plan = plan * 4 / plan.sum(axis=0, keepdims=True)
    close(np.exp(outputs(still, params, TASK)), plan, 1e-6)


def test_tim_descends_its_objective():
    import optax

    make = lambda steps: jm.tim(
        IDENTITY, classes=4, ways=WAYS, features=4, inner_steps=steps, inner_lr=0.1,
        rule=optax.sgd,
    )  # fmt: skip
    params = make(0).init(jax.random.key(0))
    z, q = unit(np.asarray(TASK.support.x)), unit(np.asarray(TASK.query.x))
    y = np.asarray(TASK.support.y)
    start = np.stack([z[y == k].mean(axis=0) for k in range(WAYS)])

    def objective(w):  # eq. 3
        see = lambda a: log_softmax(-7.5 * distances(a, w), axis=1)
        fit, log_p = -see(z)[np.arange(len(y)), y].mean(), see(q)
        p = np.exp(log_p)
        marginal = p.mean(axis=0)
        spread = -(marginal * np.log(marginal)).sum()
        return 0.1 * fit - spread - 0.1 * (p * log_p).sum(axis=1).mean()

    slope = np.zeros_like(start)
    for i in np.ndindex(*start.shape):
        e = np.zeros_like(start)
        e[i] = 1e-6
        slope[i] = (objective(start + e) - objective(start - e)) / 2e-6
    expected = -7.5 * distances(q, start - 0.1 * slope)
    close(outputs(make(0), params, TASK), -7.5 * distances(q, start))
    close(outputs(make(1), params, TASK), expected, 1e-6)


def test_transductive_finetuning_descends_support_and_entropy():
    import optax

    make = lambda steps: jm.transductive_finetuning(
        IDENTITY, classes=4, ways=WAYS, features=4, temperature=0.5, inner_steps=steps,
        inner_lr=0.1, rule=optax.sgd,
    )  # fmt: skip
    params = make(0).init(jax.random.key(0))
    z, q = unit(np.asarray(TASK.support.x)), unit(np.asarray(TASK.query.x))
    y, w = np.asarray(TASK.support.y), unit(means(TASK))
    close(outputs(make(0), params, TASK), q @ w.T / 0.5)
    # one step: the gradients of a softmax and of an entropy, written out
    p = softmax(z @ w.T / 0.5, axis=1)
    r = softmax(q @ w.T / 0.5, axis=1)
    log_r = np.log(r)
    entropy = -(r * log_r).sum(axis=1, keepdims=True)
    of_support = (p - np.eye(WAYS)[y]) / len(y)
    of_query = -r * (log_r + entropy) / len(q)
    grad_w = (of_support.T @ z + of_query.T @ q) / 0.5
    grad_b = of_support.sum(axis=0) + of_query.sum(axis=0)
    expected = q @ (w - 0.1 * grad_w).T / 0.5 - 0.1 * grad_b
    close(outputs(make(1), params, TASK), expected, 1e-8)


BAD = [
    (lambda: jm.protonet(IDENTITY, distance="manhattan"), "distance: expected one of"),
    (lambda: jm.protonet(IDENTITY, scale=0.0), "scale: expected a number > 0, got 0"),
    (lambda: jm.matching(IDENTITY, processing_steps=0), "processing_steps: expected"),
    (lambda: jm.meta_baseline(IDENTITY, temperature=-1.0), "temperature: .*> 0, got -1"),
    (lambda: jm.feat(IDENTITY, heads=5), "heads: expected a divisor of the"),
    (lambda: jm.deepemd(IDENTITY, regularization=0.0), "regularization: .* > 0, got 0"),
    (lambda: jm.baseline(IDENTITY, classes=1), "classes: expected a whole number >= 2"),
    (lambda: jm.simpleshot(IDENTITY, classes=4, transform="L1"), "one of UN, L2N, CL2N"),
    (lambda: jm.tim(IDENTITY, classes=4, tau=0.0), "tau: expected a number > 0"),
    (lambda: jm.tim(IDENTITY, classes=4, entropy_weight=-1.0), "entropy_weight: .*>= 0"),
    (lambda: jm.laplacian_shot(IDENTITY, classes=4, smoothness=-1.0), "smoothness: .*>= 0"),
    (lambda: jm.pt_map(IDENTITY, classes=4, alpha=1.5), r"alpha: .* \(0, 1\], got 1.5"),
    (lambda: jm.bd_cspn(IDENTITY, classes=4, epsilon=0.0), "epsilon: expected a number"),
    (lambda: jm.label_propagation(IDENTITY, alpha=1.0), r"alpha: .*\(0, 1\), got 1.0"),
    (lambda: jm.soft_kmeans(IDENTITY, variant="hard"), "one of plain, cluster, masked"),
    (lambda: jm.relation(IDENTITY, IDENTITY, ways=1), "ways: expected a whole number"),
    (lambda: jm.with_noise(jm.protonet, IDENTITY), "no noisy forward pass"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), BAD)
def test_bad_arguments_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_bad_unlabelled_sets_are_refused():
    learner = jm.soft_kmeans(IDENTITY, ways=WAYS)
    params = learner.init(jax.random.key(0))
    with pytest.raises(ValueError, match="the unlabelled set is empty; sample tasks"):
        learner.adapt(params, TASK.support)
    nothing = TASK.support._replace(y=jnp.full(6, -1))
    with pytest.raises(ValueError, match="every example is unlabelled"):
        learner.adapt(params, nothing)
    some = TASK.support._replace(y=TASK.support.y.at[0].set(-1))
    with pytest.raises(ValueError, match=r"got \[-1\]; .* for soft_kmeans"):
        jm.protonet(IDENTITY, ways=WAYS).adapt((), some)
