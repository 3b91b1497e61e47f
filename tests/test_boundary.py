"""The same rules through every door, outside and inside jit: what no learner decides."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from jax import export
from problems import double, largest_difference, one_task

import jaxmeta as jm
from jaxmeta import adjoints, keys, losses
from jaxmeta.training.evaluate import interval

SINUSOID = jm.tasks.sinusoid(shots=5, queries=5)


def first_task(sampler, seed=0):
    return one_task(sampler, jax.random.key(seed))


# Kind 1: a promise that holds under jit


@pytest.mark.parametrize("label", [-1, -7, 4, 2**31 - 1])
def test_cross_entropy_of_a_label_out_of_range_is_nan(label):
    value = lambda x: losses.cross_entropy(x, jnp.array([label, 1]))
    assert np.isnan(value(jnp.zeros((2, 4)))[0]) and np.isfinite(
        value(jnp.zeros((2, 4)))[1]
    )
    slope = jax.jit(jax.grad(lambda x: jnp.sum(value(x))))(jnp.zeros((2, 4)))
    assert np.isnan(slope[0]).any() and np.isfinite(slope[1]).all()


@pytest.mark.parametrize(
    "loss", [lambda o, y: jnp.sum(jnp.square(o), axis=1) + 0.0 * y]
)
def test_a_loss_that_ignores_labels_does_not_hide_them(loss):
    """Whatever a user's loss makes of a bad label, the mean is NaN, and its slope."""
    batch = jm.Batch(jnp.zeros((2, 1)), jnp.array([0, 5]))
    mean = lambda o: losses.mean_loss(loss, o, batch)
    assert np.isnan(mean(jnp.ones((2, 3))))
    assert np.isnan(jax.grad(mean)(jnp.ones((2, 3)))).all()


def test_the_mean_of_no_example_is_nan_and_so_is_its_slope():
    mean = lambda v: losses.mean(v, jnp.zeros(3))
    value, slope = jax.jit(jax.value_and_grad(mean))(jnp.ones(3))
    assert np.isnan(value) and np.isnan(slope).all()


@pytest.mark.parametrize("name", ["maml", "reptile", "r2d2", "metaoptnet"])
def test_unlabelled_examples_are_no_class(blobs, name):
    """-1 was learnt as the last class; now the step is not taken, and says so."""
    sampler = jm.tasks.episodes(blobs, 3, 1, 2, unlabelled=4)
    features = {"maml": 3, "reptile": 3}.get(name, 8)
    ways = {} if features == 3 else {"ways": 3}
    learner = getattr(jm, name)(jm.models.mlp(6, features, (8,)), **ways)
    optimizer = optax.sgd(0.1)
    state = jm.init_state(learner, optimizer, jax.random.key(0))
    before = jax.device_get(state.params)
    tasks = jm.sample_tasks(sampler, jax.random.key(1), 2)
    state, metrics = jm.make_step(learner, optimizer)(state, tasks, jax.random.key(2))
    assert metrics["diverged"] == 1 and metrics["skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, state.params, before)
    report = jm.evaluate(
        learner, state.params, sampler, num_tasks=3, key=jax.random.key(3)
    )
    assert report.diverged == 3 and np.isnan(report.mean["loss"])


RULES = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "lamb": optax.lamb,
    "a function": lambda lr: optax.adam(lr),
    "clipped by norm": lambda lr: optax.chain(
        optax.clip_by_global_norm(1.0), optax.sgd(lr)
    ),
    "clipped by block": lambda lr: optax.chain(
        optax.clip_by_block_rms(1.0), optax.sgd(lr)
    ),
    "rmsprop": functools.partial(optax.rmsprop, eps_in_sqrt=False),
    "polyak": lambda lr: optax.polyak_sgd(lr),  # its update needs the loss
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_unused_units_leave_the_meta_gradient_finite(rule):
    learner = jm.maml(
        jm.models.mlp(hidden=(8,)),
        loss=jm.losses.mse,
        inner_lr=0.01,
        inner_steps=2,
        rule=RULES[rule],
    )
    params = learner.init(jax.random.key(0))
    params["dense1"]["bias"] = params["dense1"]["bias"].at[0].set(-1e3)  # unused
    task = first_task(SINUSOID)
    gradient = jax.jit(jax.grad(lambda p: learner.loss(p, task)[0]))(params)
    gradient = jax.device_get(gradient)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert any(g.any() for g in jax.tree.leaves(gradient))
    if rule not in ("adamw", "lamb"):  # no weight decay: unused is unused
        assert gradient["dense1"]["kernel"][0, 0] == 0


LINE = jm.Model(lambda key: {"w": jnp.ones(())}, lambda params, x: params["w"] * x)


@pytest.mark.parametrize("rule", ["clipped by norm", "clipped by block"])
@pytest.mark.parametrize(
    "adjoint", [jm.MixedMode(), jm.Reverse(), jm.Forward()], ids=str
)
def test_clipping_a_zero_gradient_has_the_slope_of_not_clipping(x64, rule, adjoint):
    """w = 1 fits the support set y = x, so the inner gradient is 0 and w' = w; with
    L = (w - 1)^2 the slope of w' = w - a 2 (w - 1) is 1 - 2a, and the query asks for 3."""
    a, one = 0.3, jnp.ones((1, 1))
    learner = jm.maml(
        LINE, loss=jm.losses.mse, inner_lr=a, rule=RULES[rule], adjoint=adjoint
    )
    task = jm.Task(jm.Batch(one, one), jm.Batch(one, 3 * one))
    slope = jax.grad(lambda p: learner.loss(p, task)[0])({"w": jnp.ones(())})["w"]
    np.testing.assert_allclose(slope, 2 * (1 - 3) * (1 - 2 * a), rtol=1e-12)


def test_a_step_that_is_not_finite_is_counted_not_applied():
    """A network that overflows in one step of ten: the other nine are taken."""

    def loss(outputs, targets):
        return jnp.square(outputs - targets)

    class Poisoned:
        def sample(self, key):
            task = SINUSOID.sample(key)
            bad = jax.random.uniform(jax.random.fold_in(key, 99)) < 0.3
            y = jnp.where(bad, 1e38, task.query.y)  # its square is infinite
            return task._replace(query=task.query._replace(y=y))

    learner = jm.maml(jm.models.mlp(hidden=(8,)), inner_lr=0.01, loss=loss)
    with pytest.warns(
        RuntimeWarning, match=r"of the 10 meta-steps up to step 10 .* not applied"
    ):
        state = jm.fit(
            learner, Poisoned(), optax.adam(1e-3), steps=10, key=jax.random.key(0),
            tasks_per_step=1,
        )  # fmt: skip
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(state))
    assert int(state.step) == 10


def test_one_logit_is_about_two_classes():
    batch = jm.Batch(jnp.zeros((4, 1)), jnp.array([0, 1, 1, 1]))
    logits = jnp.array([[-1.0], [2.0], [3.0], [0.5]])
    for outputs in (logits, logits[:, 0]):
        assert losses.score(outputs, batch)["accuracy"] == 1
    assert losses.score(-logits, batch)["accuracy"] == 0
    with pytest.raises(ValueError, match=r"one logit.*sigmoid_binary_cross_entropy"):
        losses.cross_entropy(logits, batch.y)
    sigmoid = lambda o, y: optax.sigmoid_binary_cross_entropy(o[:, 0], y)
    learner = jm.maml(jm.models.mlp(1, 1, (4,)), loss=sigmoid)
    _, metrics = learner.loss(learner.init(jax.random.key(0)), jm.Task(batch, batch))
    assert 0 <= metrics["accuracy"] <= 1


def test_losses_of_all_pairs_are_refused():
    """[n, 1] against [n] broadcasts: the mean over n x n pairs was another number."""
    batch = jm.Batch(jnp.zeros((3, 1)), jnp.array([0, 1, 1]))
    with pytest.raises(ValueError, match=r"losses of shape \(3, 3\).*outputs\[:, 0\]"):
        losses.mean_loss(lambda o, y: o - y[None], jnp.ones((3, 1)), batch)


@pytest.mark.parametrize("label", [2**32, 2**31])
def test_labels_beyond_32_bits_are_refused(label):
    x = np.zeros((2, 6), np.float32)
    task = jm.Task(*[jm.Batch(x, np.array([0, label]))] * 2)
    learner = jm.protonet(jm.models.mlp(6, 8, (4,)), ways=2)
    with pytest.raises(ValueError, match="32 bits"):
        learner.loss(learner.init(jax.random.key(0)), task)


def test_a_byte_of_255_is_not_the_label_minus_one():
    x = jnp.zeros((3, 6))
    batch = jm.Batch(x, jnp.array([0, 1, 255], jnp.uint8))
    learner = jm.label_propagation(jm.models.mlp(6, 8, (4,)), ways=2, features=8)
    params = learner.init(jax.random.key(0))
    query = jm.Batch(x[:1], jnp.array([0]))
    assert np.isnan(jax.jit(learner.loss)(params, jm.Task(batch, query))[0])


def test_a_prediction_of_nan_is_not_right():
    batch = jm.Batch(jnp.zeros((3, 1)), jnp.array([0, 0, 1]))
    outputs = jnp.full((3, 5), jnp.nan)
    assert losses.score(outputs, batch)["accuracy"] == 0
    assert losses.score(outputs.at[2].set(jnp.eye(5)[1]), batch)["accuracy"] == 1 / 3


@pytest.mark.parametrize("steps", [2, 5])
def test_maml_plus_plus_has_rates_for_its_own_steps_only(steps):
    model = jm.models.mlp(hidden=(4,))
    params = jm.maml_plus_plus(model, inner_steps=3).init(jax.random.key(0))
    other = jm.maml_plus_plus(model, inner_steps=steps, loss=jm.losses.mse)
    with pytest.raises(ValueError, match=rf"rates and norms of 3 .* takes {steps}"):
        jax.jit(other.loss)(params, first_task(SINUSOID))


# Kind 3: two doors to one thing


def test_no_two_purposes_of_a_run_share_a_key():
    """Every key of a run of 5 steps of 4 tasks, a validation, and what samplers and
    learners split off: all different."""
    run, seen = jax.random.key(7), {}

    def note(name, key):
        for i, part in enumerate(np.atleast_2d(jax.random.key_data(key))):
            assert seen.setdefault(tuple(part.tolist()), (name, i)) == (name, i), name

    def task(name, key):
        note(f"{name} sampler", jax.random.split(key, 8))
        note(f"{name} adapt", jax.random.split(keys.adapt(key), 4))
        note(f"{name} adapt itself", keys.adapt(key))

    note("run", run)
    note("init", jax.random.split(keys.init(run), 8))
    for step in range(5):
        key_tasks, key_loss = keys.parts(keys.step(keys.data(run), step))
        for i in range(4):
            task(f"step {step} task {i}", keys.tasks(key_tasks, 4)[i])
            note(
                f"step {step} noise {i}",
                jax.random.split(keys.tasks(key_loss, 4)[i], 8),
            )
    for i in range(20):
        task(f"validation {i}", keys.tasks(keys.validation(run), 20)[i])
    assert len(seen) > 400


def test_evaluates_noise_knows_nothing_of_the_task():
    """A learner that reports the first number it draws, on functions of known scale."""
    process = jm.tasks.gaussian_process()

    class Known:
        def sample(self, key):
            task, length, _ = process.sample_with_kernel(key)
            return task._replace(query=jm.Batch(jnp.zeros((1, 1)), length[None, None]))

    def loss(params, task, key=None):
        draws = jax.random.uniform(key, (3,))
        metrics = {f"draw{i}": draws[i] for i in range(3)}
        return jnp.zeros(()), {"loss": task.query.y[0, 0], **metrics}

    learner = jm.MetaLearner(lambda key: (), lambda *a: (), lambda *a: (), loss)
    report = jm.evaluate(learner, (), Known(), num_tasks=400, key=jax.random.key(0))
    for i in range(3):
        r = np.corrcoef(report.per_task["loss"], report.per_task[f"draw{i}"])[0, 1]
        assert abs(r) < 0.1


@jax.jit
def exactly(process, batch):
    """Its likelihood, tasks, lengths, scales: one program for all processes."""
    again = jax.random.clone(batch)
    found = jax.vmap(process.exact_log_likelihood)(again)
    return found, jax.vmap(process.sample_with_kernel)(batch)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.001, 0.003, 0.02])
def test_the_exact_process_knows_all_of_its_noise(noise):
    """Against the posterior in double precision by numpy, noise and jitter included."""
    process = jm.tasks.gaussian_process(noise=noise)
    found, made = exactly(process, keys.tasks(jax.random.key(0), 60))
    tasks, lengths, scales = jax.device_get(made)

    def by_hand(i, variance):
        rows = lambda b, a: np.float64(a[i])[np.asarray(b.mask[i]) > 0]
        (x, y), (q, t) = ((rows(b, b.x), rows(b, b.y)) for b in tasks)
        kernel = lambda a, b: (
            float(scales[i]) ** 2
            * np.exp(-((a - b.T) ** 2) / (2 * float(lengths[i]) ** 2))
        )
        weights = np.linalg.solve(
            kernel(x, x) + variance * np.eye(len(x)), kernel(x, q)
        )
        var = float(scales[i]) ** 2 - np.sum(weights * kernel(x, q), 0) + variance
        return scipy.stats.norm.logpdf(t[:, 0], weights.T @ y[:, 0], var**0.5).mean()

    right = np.mean([by_hand(i, noise**2 + 1e-5) for i in range(60)])
    np.testing.assert_allclose(np.mean(found), right, atol=2e-3)
    if noise < 0.01:  # what the task was said to be made of explains it worse
        assert np.mean([by_hand(i, noise**2) for i in range(60)]) < right - 0.05


# Kind 4: assumptions about a user's code


def with_custom_vjp(forward, backward):
    f = jax.custom_vjp(forward)
    f.defvjp(lambda x: (forward(x), None), lambda _, g: (backward(g),))
    return f


@jax.custom_jvp
def rounded_jvp(x):
    return jnp.round(4 * x) / 4


rounded_jvp.defjvp(lambda x, t: (rounded_jvp(*x), t[0]))
same = lambda x: x
clipped = with_custom_vjp(same, lambda g: jnp.clip(g, -0.01, 0.01))
CUSTOM = {
    "clipping": clipped,
    "reversal": with_custom_vjp(same, lambda g: -g),
    "straight through": with_custom_vjp(lambda x: jnp.round(4 * x) / 4, same),
    "straight through by jvp": rounded_jvp,
    "inside jit and remat": lambda x: jax.jit(jax.checkpoint(clipped))(x),
    "inside a loop": lambda x: jax.lax.scan(lambda c, _: (clipped(c), None), x, None, 2)[0],
}  # fmt: skip


@jax.custom_gradient
def half_reversed(x):
    return x, lambda g: -0.5 * g


own_relu = jax.custom_vjp(jax.nn.relu)
own_relu.defvjp(lambda x: (jax.nn.relu(x), None), lambda _, g: (0.3 * g,))
CUSTOM |= {"custom_gradient": half_reversed, "rules for a library's function": own_relu}


def custom_network(f):
    base = jm.models.mlp(1, 1, (8,))

    def apply(params, x):
        first, last = params["dense1"], params["head"]
        h = f(jnp.tanh(x @ first["kernel"] + first["bias"][None]))
        return h @ last["kernel"] + last["bias"][None]

    return jm.Model(base.init, apply)


@pytest.mark.parametrize("name", CUSTOM)
def test_a_custom_derivative_takes_plain_reverse(x64, name):
    model, task = custom_network(CUSTOM[name]), double(first_task(SINUSOID))
    params = double(model.init(jax.random.key(1)))

    def gradient(params, adjoint):
        learner = jm.maml(
            model, loss=jm.losses.mse, inner_lr=0.05, inner_steps=3, adjoint=adjoint
        )
        return jax.grad(lambda p: learner.loss(p, task)[0])(params)

    adjoints = jm.Reverse("none"), jm.MixedMode(), jm.Truncated(3)
    right, *others = jax.jit(lambda p: [gradient(p, a) for a in adjoints])(params)
    for other in others:
        assert largest_difference(other, right) < 1e-12
    with pytest.raises(ValueError, match=r"custom derivative .* expected Reverse\(\)"):
        learner = jm.imaml(model, loss=jm.losses.mse)
        jax.eval_shape(jax.grad(lambda p: learner.loss(p, task)[0]), params)


def test_derivatives_of_the_libraries_are_trusted():
    """Otherwise every network with relu would lose the mixed mode."""
    f = lambda x: jnp.sum(
        jax.nn.relu(x) + jax.nn.gelu(x) + jax.nn.silu(x) + jax.nn.log_softmax(x)
    ) + jax.scipy.special.logsumexp(x) + jnp.linalg.norm(x)  # fmt: skip
    assert adjoints.custom_derivatives(f, jnp.ones(3)) == []
    assert adjoints.custom_derivatives(lambda x: jnp.sum(clipped(x)), jnp.ones(3)) != []


def test_a_solver_of_the_users_is_no_custom_derivative():
    solve = lambda b: jnp.sum(jax.scipy.sparse.linalg.cg(lambda v: 2 * v, b)[0])
    assert adjoints.custom_derivatives(solve, jnp.ones(3)) == []


def test_a_loss_says_what_its_outputs_are():
    smooth = losses.classification(lambda o, y: losses.cross_entropy(o, y) * 0.9)
    assert losses.outputs_of(functools.partial(losses.cross_entropy)) == "logits"
    assert losses.outputs_of(functools.wraps(losses.mse)(lambda o, y: o)) == "values"
    assert (
        losses.outputs_of(optax.softmax_cross_entropy_with_integer_labels) == "logits"
    )
    assert losses.outputs_of(optax.l2_loss) == "values"
    assert losses.outputs_of(lambda o, y: o) is None
    for make in (jm.bmaml, jm.bootstrapped):
        make(jm.models.mlp(), loss=smooth)
        with pytest.raises(ValueError, match=r"jm.losses.classification\(loss\)"):
            make(jm.models.mlp(), loss=lambda o, y: o)


def test_bmaml_averages_probabilities_of_a_wrapped_loss(blobs):
    """A wrapped cross-entropy took the regression branch, in silence."""
    wrapped = functools.wraps(losses.cross_entropy)(
        lambda o, y: losses.cross_entropy(o, y)
    )
    task = first_task(jm.tasks.episodes(blobs, 3, 2, 2))
    found = []
    for loss in (losses.cross_entropy, wrapped):
        learner = jm.bmaml(jm.models.mlp(6, 3, (4,)), particles=3, loss=loss)
        params = learner.init(jax.random.key(0))
        found.append(learner.predict(learner.adapt(params, task.support), task.query.x))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    np.testing.assert_allclose(np.exp(found[1]).sum(axis=1), 1, rtol=1e-5)


def test_adapt_outside_jit_compiles_once_for_learners_built_alike(caplog):
    task = first_task(SINUSOID)
    build = lambda: jm.maml(
        jm.models.mlp(hidden=(6,)), inner_lr=0.011, inner_steps=3, loss=jm.losses.mse
    )
    learner = build()
    params = learner.init(jax.random.key(0))
    adapted = learner.adapt(params, task.support)
    learner.loss(params, task)
    learner.predict(adapted, task.query.x)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for other in (learner, build(), build()):
            assert other is learner
            other.predict(other.adapt(params, task.support), task.query.x)
            other.loss(params, task)
    assert not [r for r in caplog.records if "Compiling" in r.getMessage()]


# Kind 5: the first minutes with own things


def test_folders_may_be_strings(tmp_path):
    learner, optimizer = jm.maml(jm.models.mlp(), loss=jm.losses.mse), optax.sgd(0.1)
    state = jm.init_state(learner, optimizer, jax.random.key(0))
    checkpoints = jm.Checkpoints(str(tmp_path / "checkpoints"))
    checkpoints.save(state)
    assert int(checkpoints.latest(state).step) == 0
    checkpoints.close()
    with jm.Log(str(tmp_path / "metrics.jsonl")) as log:
        log.chunk(1, {"loss": np.ones(1)}, 1.0)
    assert (tmp_path / "metrics.jsonl").read_text().startswith('{"step": 1')


class Lines:
    """A sampler as a user writes it: no pytree."""

    def __init__(self, slope, points=4):
        self.slope, self.points = jnp.asarray(slope), points

    def sample(self, key):
        x = jax.random.uniform(key, (self.points, 1))
        return jm.Task(jm.Batch(x, self.slope * x), jm.Batch(x, self.slope * x))


def test_a_plain_class_is_a_sampler():
    learner = jm.maml(jm.models.mlp(hidden=(4,)), inner_lr=0.01, loss=jm.losses.mse)
    sampler = Lines(2.0)
    state = jm.fit(learner, sampler, optax.sgd(0.01), steps=2, key=jax.random.key(0))
    report = lambda: jm.evaluate(
        learner, state.params, sampler, num_tasks=3, key=jax.random.key(1)
    ).mean["loss"]
    before = report()
    sampler.slope = jnp.asarray(200.0)  # an argument of the program, not a constant
    assert report() > 100 * before
    sampler.points = 5  # compiled anew
    assert np.isfinite(report())
    sampler.points = {5}
    with pytest.raises(ValueError, match=r"plain Lines.*register_dataclass"):
        report()


class Shared:
    """Arrays of its class and in its lists count as well."""

    slopes = jnp.array([1.0, 1.0])

    def __init__(self):
        self.parts = [np.array([1.0], ">f4"), "a word", 4]

    def sample(self, key):
        x = jax.random.uniform(key, (self.parts[2], 1))
        y = self.slopes[0] * self.parts[0][0] * x
        return jm.Task(jm.Batch(x, y), jm.Batch(x, y))


def test_arrays_of_a_plain_sampler_are_arguments_wherever_they_are():
    learner, sampler = jm.nearest_neighbour(None), Shared()
    size = lambda: jm.evaluate_episodes(
        learner, (), [jm.tasks.plain.as_pytree(sampler).sample(jax.random.key(0))]
    )
    assert size().mean["loss"] == 0
    largest = lambda: float(
        jax.jit(lambda s: jnp.max(s.sample(jax.random.key(0)).query.y))(
            jm.tasks.plain.as_pytree(sampler)
        )
    )
    before = largest()
    sampler.parts[0] = np.array([10.0])
    assert largest() == pytest.approx(10 * before)
    Shared.slopes = jnp.array([0.0, 1.0])
    assert largest() == 0
    sampler.generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="generator of numpy"):
        largest()


def test_what_is_remembered_is_equal_through_and_through():
    with_one, with_true = (jm.models.mlp(2, 2, (n,)) for n in (1, 2))
    assert with_one is jm.models.mlp(2, 2, (1,)) and with_one is not with_true
    with pytest.raises(ValueError, match="hidden"):
        jm.models.mlp(2, 2, (1.0,))
    with pytest.raises(ValueError, match="hidden"):
        jm.models.mlp(2, 2, (True,))


def test_whole_number_targets_are_values_where_the_loss_says_so():
    x = jnp.arange(6.0)[:, None]
    task = jm.Task(*[jm.Batch(x, jnp.arange(6)[:, None])] * 2)
    same = jax.tree.map(lambda a: a.astype(jnp.float32), task)
    learner = jm.maml(jm.models.mlp(hidden=(4,)), inner_lr=0.01, loss=jm.losses.mse)
    params = learner.init(jax.random.key(0))
    assert learner.loss(params, task)[0] == learner.loss(params, same)[0]
    assert jax.jit(learner.loss)(params, task)[1].keys() == {"loss"}
    own = jm.maml(jm.models.mlp(), loss=lambda o, y: jnp.square(o - y))
    with pytest.raises(ValueError, match=r"whole-number .* y.astype\(float\)"):
        own.loss(own.init(jax.random.key(0)), task)


def test_tasks_on_a_mesh_with_explicit_axes():
    mesh = jax.make_mesh((1,), ("tasks",))  # explicit by default in new releases
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("tasks"))
    learner = jm.maml(jm.models.mlp(hidden=(4,)), inner_lr=0.01, loss=jm.losses.mse)
    optimizer = optax.sgd(0.1)
    tasks = jm.sample_tasks(SINUSOID, jax.random.key(0), 2)
    moved = jax.device_put(tasks, spec)
    results = []
    for given in (tasks, moved):
        state = jm.init_state(learner, optimizer, jax.random.key(0))
        results.append(jm.make_step(learner, optimizer)(state, given)[0].params)
    assert largest_difference(*results) < 1e-6
    params = results[0]
    report = jm.evaluate_episodes(learner, params, moved)
    np.testing.assert_allclose(
        report.mean["loss"], jm.meta_loss(learner)(params, moved)[0], rtol=1e-5
    )


@pytest.mark.parametrize(
    "model",
    [
        lambda: jm.models.conv4(None, input_shape=(16, 16, 1), widths=4),
        lambda: jm.models.conv4(None, input_shape=(16, 16, 1), widths=16),
        lambda: jm.models.mlp((16, 16, 1), 8, (8,)),
        lambda: jm.models.resnet12(input_shape=(16, 16, 1), widths=(2, 2, 2, 2)),
    ],
)
def test_predict_is_exported_for_any_number_of_queries(model):
    learner = jm.protonet(model(), ways=2)
    params = learner.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (5, 16, 16, 1))
    adapted = learner.adapt(params, jm.Batch(x[:2], jnp.arange(2)))
    (n,) = export.symbolic_shape("n")
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), adapted)
    query = jax.ShapeDtypeStruct((n, 16, 16, 1), jnp.float32)
    program = export.export(jax.jit(learner.predict))(shapes, query)
    for size in (3, 5):
        np.testing.assert_allclose(
            program.call(adapted, x[:size]),
            learner.predict(adapted, x[:size]),
            atol=1e-4,
        )


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau(patience=1)),
        optax.polyak_sgd(1e-2),
        optax.chain(optax.sgd(0.1), optax.scale_by_backtracking_linesearch(3)),
        optax.lbfgs(),  # its line search differentiates the value it is given
    ],
    ids=["plateau", "polyak", "line search", "lbfgs"],
)
def test_optimisers_that_want_the_loss_get_it(optimizer):
    learner = jm.maml(jm.models.mlp(hidden=(4,)), inner_lr=0.01, loss=jm.losses.mse)
    state = jm.fit(learner, SINUSOID, optimizer, steps=4, key=jax.random.key(0))
    start = learner.init(keys.init(jax.random.key(0)))
    assert largest_difference(state.params, start) > 0


@pytest.mark.parametrize("tasks", [2, 5, 10])
def test_intervals_cover_what_they_say(tasks):
    """95 % of the intervals of normal numbers contain their mean 0."""
    values = np.random.default_rng(0).normal(size=(4000, tasks))
    inside = np.mean([abs(v.mean()) <= interval(v) for v in values])
    assert abs(inside - 0.95) < 4 * (0.95 * 0.05 / 4000) ** 0.5


def test_perfect_tasks_leave_a_doubt():
    """With 1 of 100 tasks imperfect, 60 tasks look perfect in (0.99)^60 = 55 % of runs."""
    assert interval(np.ones(60), share=True) == pytest.approx(1 - 0.05 ** (1 / 60))
    assert interval(np.ones(600), share=True) == pytest.approx(3 / 600, rel=0.01)
    assert interval(np.ones(60)) == 0  # a loss of 1 in each is another matter


def test_simpleshots_mean_is_the_mean(blobs):
    """Of all training examples, whatever the outer optimiser's rate."""
    learner = jm.simpleshot(jm.models.mlp(6, 8, (16,)), classes=20, ways=3, features=8)
    state = jm.fit(
        learner, jm.tasks.classes(blobs, 32), optax.adam(1e-3), steps=300,
        key=jax.random.key(0),
    )  # fmt: skip
    encode = jax.jit(jm.models.mlp(6, 8, (16,)).apply)
    z = np.asarray(encode(state.params.encoder, blobs.x))
    np.testing.assert_allclose(state.params.m, z.mean(axis=0), atol=1e-5)

    def make(rate):
        return learner, optax.sgd(rate)

    states, _ = jm.fit_population(
        make, jm.tasks.classes(blobs, 32), steps=2, rate=[0.1, 0.01],
        keys=jax.random.split(jax.random.key(1), 2),
    )  # fmt: skip
    member = jax.tree.map(lambda a: np.asarray(a)[1], states.params)
    z = np.asarray(encode(member.encoder, blobs.x))
    np.testing.assert_allclose(member.m, z.mean(axis=0), atol=1e-5)
