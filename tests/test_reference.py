"""Numbers that this project's code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import largest_difference
from sklearn.gaussian_process import GaussianProcessRegressor, kernels
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid

import jaxmeta as jm
from jaxmeta.learners.gaussian import Gaussian, log_likelihood
from jaxmeta.solvers import ridge
from jaxmeta.tasks.gaussian_process import posterior

pytestmark = pytest.mark.usefixtures("x64")

ADJOINTS = jm.MixedMode(), jm.Reverse(), jm.Reverse(remat="none", unroll=2)
# our layer and parameter -> the golden files' names
MLP = {
    (ours, part): f"{theirs}.{short}"
    for ours, theirs in (("dense1", "fc1"), ("dense2", "fc2"), ("head", "fc3"))
    for part, short in (("kernel", "w"), ("bias", "b"))
}
CONV4 = {("head", "kernel"): "head.w", ("head", "bias"): "head.b"}
for i in range(1, 5):
    CONV4 |= {(f"conv{i}", "kernel"): f"conv{i}.w", (f"conv{i}", "bias"): f"conv{i}.b"}
    CONV4 |= {(f"norm{i}", n): f"bn{i}.{n}" for n in ("scale", "offset")}


def tree(arrays, prefix, names):
    made = {}
    for (layer, part), name in names.items():
        made.setdefault(layer, {})[part] = jnp.asarray(arrays[f"{prefix}.{name}"])
    return made


@pytest.mark.parametrize(
    ("case", "adjoint"),
    [*(("G1_s1", a) for a in ADJOINTS), ("G2_s1", jm.MixedMode())],
)
def test_maml_gradient_is_the_golden_one(golden, case, adjoint):
    """Computed by torch.func, agreed on by three other libraries."""
    names, model, loss = {
        "G1_s1": (MLP, jm.models.mlp(), jm.losses.mse),
        "G2_s1": (CONV4, jm.models.conv4(5), jm.losses.cross_entropy),
    }[case]
    stored = golden(case)
    data = {name: jnp.asarray(stored[f"d.{name}"]) for name in ("xs", "ys", "xq", "yq")}
    tasks = jm.Task(jm.Batch(data["xs"], data["ys"]), jm.Batch(data["xq"], data["yq"]))
    learner = jm.maml(
        model,
        inner_lr=float(stored["inner_lr"]),
        inner_steps=int(stored["inner_steps"]),
        loss=loss,
        adjoint=adjoint,
    )
    (value, _), gradient = jax.jit(jm.meta_gradient(learner))(
        tree(stored, "w", names), tasks
    )
    assert abs(float(value) / float(stored["loss"]) - 1) < 1e-9
    assert largest_difference(gradient, tree(stored, "g", names)) < 1e-9


def linear_regression(steps, alpha=0.1):
    """A task, and the meta-gradients that algebra gives.

    With L(w) = |Xw - y|^2 / n, a step w - alpha dL/dw is affine in w:
    w_k+1 = (I - alpha A) w_k + alpha b, A = 2 X'X / n, b = 2 X'y / n. So the
    meta-gradient is ((I - alpha A)^steps)' times the query gradient at w_steps, and
    the first-order one is the query gradient itself.
    """
    random = np.random.default_rng(0)
    x, y = random.normal(size=(6, 4)), random.normal(size=(6, 1))
    xq, yq = random.normal(size=(5, 4)), random.normal(size=(5, 1))
    w0 = w = random.normal(size=(4, 1))
    contraction = np.eye(4) - alpha * 2 * x.T @ x / 6
    for _ in range(steps):
        w = contraction @ w + alpha * 2 * x.T @ y / 6
    query = 2 * xq.T @ (xq @ w - yq) / 5
    task = jm.Task(
        *(jm.Batch(jnp.asarray(a), jnp.asarray(b)) for a, b in ((x, y), (xq, yq)))
    )
    exact = np.linalg.matrix_power(contraction, steps).T @ query
    return jnp.asarray(w0), task, exact, query


LINEAR = jm.Model(lambda key: jnp.zeros((4, 1)), lambda w, x: x @ w)


@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("steps", [1, 10])
def test_maml_on_linear_regression_is_its_closed_form(steps, adjoint):
    w0, task, exact, _ = linear_regression(steps)
    learner = jm.maml(
        LINEAR, inner_lr=0.1, inner_steps=steps, loss=jm.losses.mse, adjoint=adjoint
    )
    gradient = jax.jit(jax.grad(lambda w: learner.loss(w, task)[0]))(w0)
    np.testing.assert_allclose(
        gradient, exact, rtol=0, atol=1e-12 * np.abs(exact).max()
    )


@pytest.mark.parametrize("steps", [1, 10])
def test_fomaml_on_linear_regression_is_its_closed_form(steps):
    w0, task, exact, first_order = linear_regression(steps)
    learner = jm.fomaml(LINEAR, inner_lr=0.1, inner_steps=steps, loss=jm.losses.mse)
    gradient = jax.jit(jax.grad(lambda w: learner.loss(w, task)[0]))(w0)
    np.testing.assert_allclose(gradient, first_order, rtol=1e-12)
    assert np.abs(first_order - exact).max() > 1e-3  # so the test can tell them apart


@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("steps", [1, 3])
def test_anil_on_a_linear_network_is_its_closed_form(steps, adjoint):
    """f(x) = x B h with body B fixed inside: the head follows the affine map of the
    features Z = XB. The body's gradient is by finite differences of that numpy map."""
    _, task, _, _ = linear_regression(steps)
    random = np.random.default_rng(1)
    body, head = random.normal(size=(4, 3)), random.normal(size=(3, 1))
    x, y, xq, yq = (np.asarray(a) for b in task for a in b[:2])

    def meta_loss(body, head):
        z = x @ body
        for _ in range(steps):
            head = head - 0.1 * 2 * z.T @ (z @ head - y) / len(x)
        return np.mean(np.square(xq @ body @ head - yq))

    model = jm.Model(
        lambda key: {"body": jnp.asarray(body), "head": jnp.asarray(head)},
        lambda p, x: x @ p["body"] @ p["head"],
    )
    learner = jm.anil(
        model, inner_lr=0.1, inner_steps=steps, loss=jm.losses.mse, adjoint=adjoint
    )
    params = learner.init(jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda p: learner.loss(p, task)[0]))(params)
    for name, base in (("body", body), ("head", head)):
        numeric = np.zeros_like(base)
        for place in np.ndindex(*base.shape):
            nudge = np.zeros_like(base)
            nudge[place] = 1e-6
            up, down = (
                {"body": body, "head": head} | {name: base + s * nudge} for s in (1, -1)
            )
            numeric[place] = (meta_loss(**up) - meta_loss(**down)) / 2e-6
        np.testing.assert_allclose(gradient[name], numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("features", [3, 30])  # fewer and more than examples
def test_r2d2_head_is_scikit_learns_ridge(features):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(10, features)), random.normal(size=(10, 4))
    reference = Ridge(alpha=0.7, fit_intercept=False).fit(x, y)
    w = ridge(jnp.asarray(x), jnp.asarray(y), 0.7)
    np.testing.assert_allclose(w, reference.coef_.T, rtol=1e-10, atol=1e-12)


def test_r2d2_predicts_what_scikit_learns_ridge_does(blobs):
    """The whole learner, with the encoder's features given to scikit-learn."""
    encoder = jm.models.mlp(6, 8, (16,))
    learner = jm.r2d2(encoder, ways=3, penalty=0.5)
    task = jm.tasks.episodes(blobs, 3, 2, 3).sample(jax.random.key(0))
    params = learner.init(jax.random.key(1))
    predict = lambda s, x: learner.predict(learner.adapt(params, s), x)
    logits = jax.jit(predict)(task.support, task.query.x)
    features = [np.asarray(encoder.apply(params.encoder, b.x), float) for b in task]
    one_hot = np.eye(3)[np.asarray(task.support.y)]
    reference = Ridge(alpha=0.5, fit_intercept=False).fit(features[0], one_hot)
    expected = float(params.alpha) * reference.predict(features[1]) + float(params.beta)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_protonet_classifies_as_scikit_learns_nearest_centroid(blobs):
    encoder = jm.models.mlp(6, 8, (16,))
    learner = jm.protonet(encoder, ways=5)
    task = jm.tasks.episodes(blobs, 5, 2, 6).sample(jax.random.key(0))
    params = learner.init(jax.random.key(1))
    adapted = learner.adapt(params, task.support)
    support, query = (np.asarray(encoder.apply(params, b.x)) for b in task)
    reference = NearestCentroid().fit(support, np.asarray(task.support.y))
    np.testing.assert_allclose(adapted.c, reference.centroids_, rtol=1e-5, atol=1e-6)
    logits = learner.predict(adapted, task.query.x)
    assert (np.argmax(logits, axis=1) == reference.predict(query)).all()
    distances = np.square(query[:, None] - reference.centroids_[None]).sum(-1)
    np.testing.assert_allclose(logits, -distances, rtol=1e-4, atol=1e-5)


def test_cnp_is_the_equations_in_numpy():
    """Equations 1-4 written out for a linear encoder and decoder."""
    linear = lambda w: jm.Model(lambda key: jnp.asarray(w), lambda w, x: x @ w)
    random = np.random.default_rng(0)
    h, g = random.normal(size=(2, 3)), random.normal(size=(4, 2))
    learner = jm.cnp(linear(h), linear(g), min_std=0.1)
    x, y, xq, yq = (random.normal(size=(n, 1)) for n in (4, 4, 6, 6))
    task = jm.Task(
        *(jm.Batch(jnp.asarray(a), jnp.asarray(b)) for a, b in ((x, y), (xq, yq)))
    )
    params = learner.init(jax.random.key(0))
    value, metrics = jax.jit(learner.loss)(params, task)
    r = np.mean(np.concatenate([x, y], 1) @ h, axis=0)
    x, y = np.concatenate([xq, x]), np.concatenate([yq, y])
    out = np.concatenate([x, np.tile(r, (10, 1))], 1) @ g
    mean, std = out[:, 0], 0.1 + 0.9 * np.log1p(np.exp(out[:, 1]))
    density = -0.5 * ((y[:, 0] - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
    trained = jax.jit(learner.objective)(params, task, None, 0)[0]
    np.testing.assert_allclose(trained, -density.mean(), rtol=1e-12)
    out, std, density = out[:6], std[:6], density[:6]
    np.testing.assert_allclose(value, -density.mean(), rtol=1e-12)
    np.testing.assert_allclose(metrics["log_likelihood"], density.mean(), rtol=1e-12)
    both = log_likelihood(
        Gaussian(jnp.asarray(out[:, :1]), jnp.asarray(std[:, None])), jnp.asarray(yq)
    )
    np.testing.assert_allclose(both, density, rtol=1e-12)


def test_gaussian_process_posterior_is_scikit_learns():
    random = np.random.default_rng(0)
    x, y, new = (
        random.normal(size=(7, 1)),
        random.normal(size=(7, 1)),
        random.normal(size=(5, 1)),
    )
    kernel = kernels.ConstantKernel(0.8**2) * kernels.RBF(0.4)
    reference = GaussianProcessRegressor(kernel, alpha=0.1**2, optimizer=None).fit(
        x, y[:, 0]
    )
    mean, std = reference.predict(new, return_std=True)
    # two masked points of nonsense must not matter
    mask = np.array([1.0] * 7 + [0.0] * 2)
    padded = [np.concatenate([a, np.full((2, 1), 9.0)]) for a in (x, y)]
    of = jax.jit(lambda batch, new: posterior(batch, new, 0.4, 0.8, 0.1))
    ours = of(jm.Batch(*padded, mask), new)
    np.testing.assert_allclose(ours[0][:, 0], mean, rtol=1e-8)
    # scikit-learn's is of the function, ours of a noisy observation
    np.testing.assert_allclose(ours[1][:, 0], np.sqrt(std**2 + 0.1**2), rtol=1e-8)
