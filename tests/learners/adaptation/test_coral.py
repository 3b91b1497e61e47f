"""CORAL and inputs standardised by domain: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from few_points import IDENTITY, close, start
from jax.test_util import check_grads
from scipy.linalg import sqrtm
from scipy.special import log_softmax, softmax

import jaxmeta as jm
from jaxmeta.learners.adaptation.coral import align, lyapunov, square_root

pytestmark = pytest.mark.usefixtures("x64")

N, D = 40, 4
RANDOM = np.random.default_rng(0)
Z = RANDOM.normal(size=(N, D)) @ RANDOM.normal(size=(D, D)) + 1
SOURCE = (np.arange(N) % 2 == 0).astype(float)
TARGET = 1 - SOURCE
SOURCE[-2:] = TARGET[-2:] = 0  # padding
Z[TARGET > 0] = Z[TARGET > 0] @ RANDOM.normal(size=(D, D)) - 2
X_S, X_T = Z[SOURCE > 0], Z[TARGET > 0]
Y = np.where(SOURCE > 0, np.arange(N) // 2 % 3, -1)
SUPPORT = jm.Batch(Z, Y, SOURCE + TARGET)
covariance = lambda x: np.cov(x, rowvar=False, ddof=1)
aligning = jax.jit(align, static_argnames="mean")  # eagerly, each operation compiles
root_of, solve = jax.jit(square_root), jax.jit(lyapunov)
root_of_mean = jax.jit(lambda c: square_root((c + c.T) / 2))


def aligned(x_s, x_t, ridge):
    """Algorithm 1, with scipy's square roots."""
    eye = ridge * np.eye(x_s.shape[1])
    of = lambda x: np.real(sqrtm(covariance(x) + eye))
    return (x_s - x_s.mean(axis=0)) @ np.linalg.inv(of(x_s)) @ of(x_t)


def regression(x, y, steps, rate, ways=3, momentum=0.0):
    """Softmax regression by gradient descent from zero, in numpy."""
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    w, onehot = np.zeros((x.shape[1], ways)), np.eye(ways)[y]
    update = np.zeros_like(w)
    for _ in range(steps):
        slope = x.T @ (softmax(x @ w, axis=1) - onehot) / len(x)
        update = momentum * update - rate * slope
        w += update
    return w[:-1], w[-1]


def test_the_aligned_source_has_the_targets_covariance():
    given = [jnp.asarray(a) for a in (Z, SOURCE, TARGET)]
    found = np.asarray(aligning(*given, regularization=0.0))[SOURCE > 0]
    close(covariance(found), covariance(X_T), 1e-10)
    close(found.mean(axis=0), X_T.mean(axis=0), 1e-10)
    own = np.asarray(aligning(*given, regularization=0.0, mean="source"))[SOURCE > 0]
    close(own.mean(axis=0), X_S.mean(axis=0), 1e-10)
    found = np.asarray(aligning(*given, regularization=1.0))[SOURCE > 0]
    close(found, aligned(X_S, X_T, 1.0) + X_T.mean(axis=0), 1e-9)


@pytest.mark.parametrize("of_target", [20, 13])
def test_alignment_is_that_of_skada_up_to_its_covariances_over_n(of_target):
    """Its formulas; `test_skada.py` has the library itself."""

    def power(x, p):
        values, v = np.linalg.eigh(np.cov(x, rowvar=False, ddof=0))
        return (v * values**p) @ v.T

    normal = np.random.default_rng(2).normal
    x_s, x_t = normal(size=(20, D)) @ Z[:D], normal(size=(of_target, D)) + 3
    theirs = (x_s - x_s.mean(axis=0)) @ power(x_s, -0.5) @ power(x_t, 0.5)
    sides = np.repeat([1.0, 0.0], [20, of_target])
    given = [jnp.asarray(a) for a in (np.concatenate([x_s, x_t]), sides, 1 - sides)]
    found = np.asarray(aligning(*given, regularization=0.0))[:20] - x_t.mean(axis=0)
    factor = np.sqrt((1 - 1 / of_target) / (1 - 1 / 20))  # theirs over ours
    close(found * factor, theirs, 1e-8)


@pytest.mark.parametrize("standardise", ["none", "source", "domain"])
def test_coral_is_the_numbers_of_numpy(standardise):
    how = {"ways": 3, "inner_lr": 0.1, "inner_steps": 20, "epsilon": 0.3}
    learner = jm.coral(None, standardise=standardise, **how)
    params = learner.init(jax.random.key(0))
    assert not jax.tree.leaves(params)
    adapted = jax.jit(learner.adapt)(params, SUPPORT)

    scale = lambda x, by: (x - by.mean(axis=0)) / (by.std(axis=0) + 0.3)
    x_s, x_t, query = X_S, X_T, RANDOM.normal(size=(5, D))
    asked = query
    if standardise != "none":
        by = X_T if standardise == "domain" else X_S
        x_s, x_t, query = scale(X_S, X_S), scale(X_T, by), scale(query, by)
    x = aligned(x_s, x_t, 1.0) + x_t.mean(axis=0)
    w, b = regression(x, Y[SOURCE > 0], 20, 0.1, momentum=0.5)
    close(adapted.head.w, w, 1e-8)
    found = log_softmax(jax.jit(learner.predict)(adapted, asked), axis=1)
    close(found, log_softmax(query @ w + b, axis=1), 1e-8)


def test_the_nearest_neighbour_of_the_aligned_source_is_the_numbers_of_numpy():
    learner = jm.coral(None, ways=4, standardise="none", head="nearest")
    adapted = jax.jit(learner.adapt)(learner.init(jax.random.key(0)), SUPPORT)
    x = aligned(X_S, X_T, 1.0) + X_T.mean(axis=0)
    query = RANDOM.normal(size=(5, D))
    squares = ((query[:, None] - x[None]) ** 2).sum(axis=2)  # [queries, source]
    of_class = [-squares[:, Y[SOURCE > 0] == k].min(axis=1) for k in range(3)]
    expected = np.stack([*of_class, np.full(5, -np.inf)], axis=1)  # none of the fourth
    close(jax.jit(learner.predict)(adapted, query), expected, 1e-8)


def by_batch():
    """Features from which the mean of the examples that count is taken."""

    def apply(w, x, mask=None):
        counts = jnp.ones(len(x)) if mask is None else mask.astype(x.dtype)
        return (x - (counts @ x / jnp.sum(counts))[None]) @ w

    return jm.Model(lambda key: jnp.eye(D), apply, uses_mask=True)


@pytest.mark.parametrize(
    ("make", "together"),
    [(jm.coral, True), (jm.coral, False), (jm.optimal_transport, False)],
)
def test_an_encoder_that_normalises_sees_domains_together_or_apart(make, together):
    """Inputs centred by hand, both domains by one mean or each by its own."""
    how = {"ways": 3, "standardise": "none", "head": "nearest"}
    if make is jm.optimal_transport:
        how["iterations"] = 3
    mean = lambda rows: Z[rows].mean(axis=0)
    centre = np.where(SOURCE[:, None] > 0, mean(SOURCE > 0), mean(TARGET > 0))
    if together:
        centre = mean(SUPPORT.mask > 0)
    w = {"encoder": np.eye(D)}
    adapted = lambda learner, *given: jax.jit(learner.adapt)(*given).head
    kept = adapted(make(by_batch(), together=together, **how), w, SUPPORT)
    by_hand = adapted(make(None, **how), {}, SUPPORT._replace(x=Z - centre))
    close(kept.z, by_hand.z, 1e-9)


def test_the_default_rule_comes_as_far_in_half_the_steps():
    """Of gradient descent, on the moved source; its classes overlap."""
    how = {"ways": 3, "standardise": "none", "inner_lr": 0.01}
    rows = SOURCE > 0
    moved = np.asarray(aligning(*map(jnp.asarray, (Z, SOURCE, TARGET))))[rows]

    def loss(**training):
        learner = jm.coral(None, **how, **training)
        head = jax.jit(learner.adapt)({}, SUPPORT).head
        log_p = log_softmax(moved @ np.asarray(head.w) + np.asarray(head.b), axis=1)
        return -log_p[np.arange(rows.sum()), Y[rows]].mean()

    half, plain = loss(inner_steps=50), loss(inner_steps=100, rule=optax.sgd)
    np.testing.assert_allclose(half, plain, rtol=0.01)
    assert loss(inner_steps=50, rule=optax.sgd) > 1.01 * plain


# eigenvalues apart, equal in pairs, all equal, and nearly so
SPECTRA = [[0.3, 1, 2, 5], [1, 1, 3, 3], [2, 2, 2, 2], [1, 1 + 1e-9, 4, 4]]


@pytest.mark.parametrize("values", SPECTRA, ids=str)
def test_the_square_root_has_derivatives_where_eigenvalues_are_equal(values):
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))
    c = (q * values) @ q.T
    root = np.asarray(root_of(c))
    close(root @ root, c)
    check_grads(root_of_mean, (c,), order=2, modes=("fwd", "rev"), rtol=1e-5, eps=1e-5)
    x = np.asarray(solve(root, q + q.T))
    close(root @ x + x @ root, q + q.T)


def test_the_gradient_through_an_encoder_is_the_slope_at_whitened_features():
    """Both covariances are the identity: all eigenvalues are equal."""

    def white(x):
        whiten = np.linalg.inv(np.linalg.cholesky(covariance(x)).T)
        return (x - x.mean(axis=0)) @ whiten

    z = Z.copy()
    z[SOURCE > 0], z[TARGET > 0] = white(X_S), white(X_T)
    linear = jm.Model(lambda key: jnp.eye(D), lambda w, x: x @ w)
    learner = jm.coral(linear, ways=3, standardise="none", inner_steps=3)
    task = jm.Task(SUPPORT._replace(x=z), jm.Batch(z[:6], np.arange(6) % 3))
    loss = jax.jit(lambda w: learner.loss({"encoder": w}, task)[0])
    along, h = np.cos(np.arange(D * D)).reshape(D, D), 1e-5
    above, below = (float(loss(np.eye(D) + t * along)) for t in (h, -h))
    slope = (above - below) / (2 * h)
    gradient = np.asarray(jax.jit(jax.grad(loss))(np.eye(D)))
    np.testing.assert_allclose(np.sum(gradient * along), slope, rtol=1e-6)


@pytest.mark.parametrize("standardise", ["none", "source", "domain"])
def test_source_only_standardises_as_by_hand(standardise):
    """A network at its start, on inputs standardised by hand."""
    x_s, x_t = X_S[:, :3].copy(), X_T[:, :3].copy()
    x_s[:, 2] = 7.1  # a constant has no deviation
    by = {"none": None, "source": x_s, "domain": x_t}[standardise]
    x = Z[:, :3].copy()
    x[SOURCE > 0] = x_s
    query = RANDOM.normal(size=(5, 3))
    scaled = query
    if by is not None:
        deviation = np.where(np.ptp(by, axis=0) > 0, by.std(axis=0), 1)
        scaled = (query - by.mean(axis=0)) / deviation
    how = {"ways": 3, "features": 3, "inner_steps": 4, "inner_lr": 0.1}
    learner = jm.source_only(IDENTITY, standardise=standardise, **how)
    params = start(learner)
    adapted = jax.jit(learner.adapt)(params, SUPPORT._replace(x=x))

    on_source = x_s
    if by is not None:
        deviation = np.where(np.ptp(x_s, axis=0) > 0, x_s.std(axis=0), 1)
        on_source = (x_s - x_s.mean(axis=0)) / deviation
    # what is trained on the source alone, by a learner that knows of no domains
    w = (params["network"].w, params["network"].b)
    model = jm.Model(lambda key: w, lambda w, x: x @ w[0] + w[1][None, :])
    rule = jm.learners.REGISTRY["source_only"].defaults["rule"]
    maml = jm.maml(model, inner_lr=0.1, inner_steps=4, rule=rule,
                   loss=jm.losses.cross_entropy)  # fmt: skip
    w, b = jax.jit(maml.adapt)(w, jm.Batch(on_source, Y[SOURCE > 0]))
    expected = scaled @ np.asarray(w) + np.asarray(b)
    close(jax.jit(learner.predict)(adapted, query), expected, 1e-9)


def test_without_a_target_there_is_nothing_to_align_with():
    """Under jit, where it can't be seen, NaN."""
    learner = jm.coral(None, ways=3, inner_steps=2)
    adapt = jax.jit(lambda mask: learner.adapt({}, SUPPORT._replace(mask=mask)))
    predict = jax.jit(learner.predict)
    predicted = np.asarray(predict(adapt(jnp.asarray(SOURCE)), Z))
    assert not np.isfinite(predicted).any()  # -inf of a class that is NaN
    assert np.isfinite(np.asarray(predict(adapt(jnp.asarray(SUPPORT.mask)), Z))).all()


def test_wrong_arguments_are_said():
    with pytest.raises(ValueError, match="standardise: expected one of none, source"):
        jm.coral(None, standardise="both")
    with pytest.raises(ValueError, match="epsilon: expected a number >= 0"):
        jm.coral(None, epsilon=-1.0)
    with pytest.raises(ValueError, match="mean: expected one of target, source"):
        jm.coral(None, mean="none")
    with pytest.raises(ValueError, match="head: expected one of softmax, nearest"):
        jm.coral(None, head="ridge")
    with pytest.raises(ValueError, match="together: expected"):
        jm.coral(None, together=1)
    learner = jm.source_only(IDENTITY, standardise="domain")
    x = {"a": np.ones((3, 2)), "b": np.ones((3, 2))}
    with pytest.raises(ValueError, match="one array"):
        learner.adapt(start(learner), jm.Batch(x, np.array([0, 1, -1])))
