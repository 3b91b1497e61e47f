"""Loops, logs, checkpoints and run folders."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from problems import many_tasks, one_task

import jaxmeta as jm
from jaxmeta.testing.learners import largest_difference
from jaxmeta.training import log as logs
from jaxmeta.training import plots

OPTIMIZER = optax.adam(1e-3)


@pytest.fixture(scope="module")
def learner():
    return jm.maml(jm.models.mlp(hidden=(8,)), inner_lr=0.01, loss=jm.losses.mse)


def train(learner, steps, **options):
    options = {"key": jax.random.key(0), "chunk": 10} | options
    return jm.fit(learner, jm.tasks.sinusoid(), OPTIMIZER, steps=steps, **options)


def same(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(p, q) for p, q in pairs)


def test_fit_is_a_loop_of_meta_steps(learner):
    """The same numbers as sampling and stepping by hand."""
    state = train(learner, 3, tasks_per_step=4)
    key = jax.random.fold_in(jax.random.key(0), 0)
    by_hand = jm.init_state(
        learner, OPTIMIZER, jax.random.fold_in(jax.random.key(0), 1)
    )
    step = jm.make_step(learner, OPTIMIZER)
    for i in range(3):
        key_tasks, key_loss = jax.random.split(jax.random.fold_in(key, i))
        tasks = many_tasks(jm.tasks.sinusoid(), key_tasks, 4)
        by_hand, _ = step(by_hand, tasks, key_loss)
    for ours, theirs in zip(
        *map(jax.tree.leaves, (state.params, by_hand.params)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_population_is_its_members_runs():
    """Seeds, inner rates and meta rates in one program: the same numbers as alone."""
    model = jm.models.mlp(hidden=(8,))

    def make(inner_lr, meta_lr):
        learner = jm.maml(model, inner_lr=inner_lr, loss=jm.losses.mse)
        return learner, optax.adam(meta_lr)

    rates = {"inner_lr": [0.1, 0.01], "meta_lr": [1e-3, 1e-2]}
    keys = jax.random.split(jax.random.key(0), 2)
    states, metrics = jm.fit_population(
        make, jm.tasks.sinusoid(), keys=keys, steps=5, **rates
    )
    assert metrics["loss"].shape == (2, 5)
    second, optimizer = make(*(values[1] for values in rates.values()))
    alone = jm.fit(second, jm.tasks.sinusoid(), optimizer, steps=5, key=keys[1])
    both = map(jax.tree.leaves, jax.device_get((states, alone)))
    for ours, theirs in zip(*both, strict=True):
        np.testing.assert_allclose(ours[1], theirs, rtol=1e-4, atol=1e-6)
        assert ours.ndim == 1 or (ours[0] != ours[1]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner_lr": [0.1, 0.2, 0.3]}, "one value for each of the 2 keys, got shape"),
        ({"keys": jax.random.key(0)}, r"keys: expected an array of keys \[members\]"),
        ({"keys": np.zeros(2)}, "expected a typed key"),
        ({"steps": 0}, "steps: expected a whole number >= 1, got 0"),
    ],
)
def test_a_population_refuses_what_does_not_fit(learner, change, message):
    options = {"keys": jax.random.split(jax.random.key(0), 2), "steps": 1}
    with pytest.raises(ValueError, match=message):
        jm.fit_population(
            lambda inner_lr: (learner, OPTIMIZER),
            jm.tasks.sinusoid(),
            **(options | {"inner_lr": [0.1, 0.2]} | change),
        )


def test_fit_is_one_program_that_consumes_its_state(learner, caplog):
    """Chunks after the first, the shorter last one too, compile nothing, and the state
    is donated to each."""
    train(learner, 10, tasks_per_step=3)
    with jax.log_compiles():
        train(learner, 25, tasks_per_step=3)
    assert not [r for r in caplog.records if "_run_chunk" in r.getMessage()]
    from jaxmeta.training.fit import _run_chunk

    state = jm.init_state(learner, OPTIMIZER, jax.random.key(0))
    lowered = _run_chunk.lower(
        state,
        jm.tasks.sinusoid(),
        jax.random.key(0),
        1,
        step=jm.make_outer(learner, OPTIMIZER, tasks_per_step=3).step,
        chunk=10,
    )
    donated = [a.donated for a in jax.tree.leaves(lowered.args_info[0][0])]
    assert donated and all(donated)


def test_a_saved_state_goes_on_bit_for_bit(learner, tmp_path):
    whole = train(learner, 25)
    saved = []
    train(learner, 10, save=saved.append)
    checkpoints = jm.Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest(jax.eval_shape(lambda: whole)) is None
    checkpoints.save(saved[-1])
    restored = checkpoints.latest(jax.eval_shape(lambda: whole))
    checkpoints.close()
    assert same(restored, saved[-1]) and type(restored) is jm.MetaState
    assert same(train(learner, 25, state=restored), whole)
    assert int(restored.step) == 10  # it was copied, not consumed


def test_fit_validates_logs_and_saves(learner, tmp_path, capsys):
    saved = []
    with jm.Log(tmp_path / "metrics.jsonl", steps=25, lines=True) as log:
        state = train(
            learner,
            25,
            log=log,
            validation=jm.tasks.sinusoid(),
            validate_every=20,
            validation_tasks=5,
            save=lambda s: saved.append(int(s.step)),
            save_every=10,
        )
    assert int(state.step) == 25 and saved == [10, 20, 25]
    lines = logs.read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [10, 20, 25]
    assert [line["step"] for line in lines if "validation_loss" in line] == [20, 25]
    assert {"validation_loss_ci95"} <= set(lines[-1])
    assert lines[0]["steps_per_second"] > 0
    shown = capsys.readouterr().out
    for word in (
        "compiling",
        "step 20: validation",
        "25/25",
        "loss",
        "steps/s",
        "left",
    ):
        assert word in shown


class Poisoned:
    """Sinusoids; of every third task nothing can be learned."""

    def __init__(self):
        self.waves = jm.tasks.sinusoid()

    def sample(self, key):
        task = self.waves.sample(jax.random.clone(key))
        bad = jax.random.bits(jax.random.fold_in(key, 7)) % 3 == 0
        y = jnp.where(bad, jnp.nan, task.query.y)
        return task._replace(query=task.query._replace(y=y))


def test_steps_that_diverge_end_a_training_that_has_too_many(learner):
    saved, how = [], {"tasks_per_step": 1, "chunk": 5, "save_every": 5}
    how |= {"key": jax.random.key(3), "save": lambda s: saved.append(jax.device_get(s))}
    with (
        pytest.warns(RuntimeWarning, match="meta-steps up to step"),
        pytest.raises(jm.DivergenceError, match="was step") as stop,
    ):
        jm.fit(learner, Poisoned(), OPTIMIZER, steps=100, skipped_at_most=3, **how)
    key = jax.random.fold_in(jax.random.key(3), 0)  # of the step that it names
    key_tasks, _ = jax.random.split(jax.random.fold_in(key, stop.value.step))
    task = Poisoned().sample(jax.random.fold_in(key_tasks, 0))
    assert np.isnan(task.query.y).all()
    assert len(saved) >= 1 and all(
        np.isfinite(a).all() for a in jax.tree.leaves([s.params for s in saved])
    )


def test_what_stops_a_training_saves_it(learner):
    saved, asked = [], []
    stop = lambda: asked.append(1) or len(asked) == 2
    save = lambda state: saved.append(int(state.step))
    state = train(learner, 100, stop=stop, save=save, save_every=100)
    assert int(state.step) == 20 and saved == [20]
    assert same(state, train(learner, 20))
    train(learner, 30, save=save, save_every=100, save_seconds=0)
    assert saved[1:] == [10, 20, 30]


def test_a_state_is_saved_before_it_is_validated(learner):
    seen = []

    class Watching(jm.Log):
        def validation(self, step, report):
            seen.append(("validated", step))

    train(
        learner,
        20,
        log=Watching(None),
        save=lambda s: seen.append(("saved", int(s.step))),
        save_every=100,
        validation=jm.tasks.sinusoid(),
        validate_every=10,
        validation_tasks=4,
    )
    assert seen == [(w, n) for n in (10, 20) for w in ("saved", "validated")]


def test_log_of_an_interrupted_run_is_cut_at_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}\n{"step": 30}\n{"st')
    with jm.Log(path, start=20):
        pass
    assert logs.read(path) == [{"step": 10}, {"step": 20}]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 0}, "steps: expected a whole number >= 1, got 0"),
        (
            {"steps": 5, "tasks_per_step": 0},
            "tasks_per_step: expected a whole number >= 1",
        ),
        ({"steps": 5, "chunk": 0}, "chunk: expected a whole number >= 1"),
    ],
)
def test_fit_refuses_sizes_below_one(learner, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        train(learner, **options)


def test_fit_refuses_a_sampler_of_nan(learner):
    sampler = replace(jm.tasks.sinusoid(), amplitude=(float("nan"), 1.0))
    with pytest.raises(ValueError, match="support targets: 10 values are NaN"):
        jm.fit(learner, sampler, OPTIMIZER, steps=1, key=jax.random.key(0))


@partial(jax.tree_util.register_dataclass, data_fields=["inner"], meta_fields=["shift"])
@dataclass(frozen=True)
class Shifted:
    """Episodes whose classes are numbered from `shift`."""

    inner: jm.tasks.Episodes
    shift: int

    def sample(self, key):
        task = self.inner.sample(key)
        return jax.tree.map(
            lambda a: a + self.shift if a.dtype == jnp.int32 else a, task
        )


@pytest.mark.parametrize("make", [jm.maml, jm.protonet])
def test_fit_refuses_labels_that_do_not_start_at_zero(blobs, make):
    sampler = Shifted(jm.tasks.episodes(blobs, 5, 1, 1), 1)
    learner = make(jm.models.mlp(6, 5, (8,)))
    options = {"steps": 1, "key": jax.random.key(0)}
    with pytest.raises(ValueError, match=r"integers in 0\.\.4 \(5 ways\), got \[5\]"):
        jm.fit(learner, sampler, OPTIMIZER, **options)


def test_evaluate_reports_what_numpy_says(learner):
    params = learner.init(jax.random.key(0))
    key, sampler = jax.random.key(1), jm.tasks.sinusoid()
    report = jm.evaluate(learner, params, sampler, num_tasks=50, key=key)
    tasks = many_tasks(sampler, jax.random.clone(key), 50)
    losses = np.asarray(jax.jit(jax.vmap(learner.loss, (None, 0)))(params, tasks)[0])
    np.testing.assert_allclose(report.per_task["loss"], losses, rtol=1e-4)
    assert report.mean["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    half = scipy.stats.t.ppf(0.975, 49) * losses.std(ddof=1) / 50**0.5
    assert report.ci95["loss"] == pytest.approx(half, rel=1e-5)
    assert report.num_tasks == 50 and report.diverged == 0
    chunks = jm.evaluate(
        learner,
        params,
        sampler,
        num_tasks=50,
        key=jax.random.clone(key),
        tasks_at_once=7,
    )
    np.testing.assert_allclose(chunks.per_task["loss"], losses, rtol=1e-4)


def test_diverged_tasks_are_reported_not_hidden():
    learner = jm.maml(
        jm.models.mlp(hidden=(8,)), inner_lr=1e18, inner_steps=4, loss=jm.losses.mse
    )
    params = learner.init(jax.random.key(0))
    report = jm.evaluate(
        learner, params, jm.tasks.sinusoid(), num_tasks=8, key=jax.random.key(1)
    )
    assert report.diverged > 0 and not np.isfinite(report.mean["loss"])
    assert f"{report.diverged} diverged" in str(report)


def test_evaluate_needs_tasks(learner):
    with pytest.raises(
        ValueError, match="num_tasks: expected a whole number >= 2, got 1"
    ):
        jm.evaluate(learner, None, None, num_tasks=1, key=jax.random.key(0))


def answers(learner, task):
    """Of a learner without parameters to the queries, by one program."""
    predict = lambda task: learner.predict(
        learner.adapt((), task.support), task.query.x
    )
    return jax.jit(predict)(task)


def test_pictures_show_every_point_and_class(tmp_path):
    """They are drawn; that they look right was seen by eye."""
    sampler = jm.tasks.episodes(jm.data.glyphs("test"), 3, 2, 2)
    task = one_task(sampler, jax.random.key(0))
    outputs = answers(jm.nearest_neighbour(3), task)
    plots.episode(task, outputs, tmp_path / "episode.png")
    wave = one_task(jm.tasks.sinusoid(), jax.random.key(0))
    x = np.linspace(-5, 5, 20)[:, None]
    plots.curve(wave, x, {"a": x, "b": (x, np.ones_like(x))}, tmp_path / "curve.png")
    lines = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "validation_loss": 1.0, "validation_loss_ci95": 0.1},
    ]
    plots.learning_curve(
        lines, tmp_path / "lines.png", metric="loss", references={"floor": 0.5}
    )
    for name in ("episode", "curve", "lines"):
        content = (tmp_path / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) > 5000


def test_nearest_neighbour_is_scikit_learns(blobs):
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    task = one_task(jm.tasks.episodes(blobs, 5, 2, 6), jax.random.key(0))
    reference = KNeighborsClassifier(1).fit(*task.support[:2])
    predicted = np.argmax(answers(jm.nearest_neighbour(5), task), axis=1)
    assert (predicted == reference.predict(task.query.x)).all()
    wave = one_task(jm.tasks.sinusoid(), jax.random.key(0))
    ours = answers(jm.nearest_neighbour(None), wave)
    theirs = KNeighborsRegressor(1).fit(*wave.support[:2]).predict(wave.query.x)
    np.testing.assert_allclose(ours, theirs)


def test_given_episodes_are_judged_as_sampled_ones(blobs):
    sampler = jm.tasks.episodes(blobs, 3, shots=2, queries=2)
    learner = jm.protonet(jm.models.mlp(6, 4, (8,)), ways=3)
    params = learner.init(jax.random.key(0))
    sampled = jm.evaluate(learner, params, sampler, num_tasks=20, key=jax.random.key(1))
    tasks = jax.device_get(many_tasks(sampler, jax.random.key(1), 20))
    given = jm.evaluate_episodes(learner, params, tasks)
    np.testing.assert_allclose(
        given.per_task["loss"], sampled.per_task["loss"], rtol=1e-5
    )
    # one by one, the last of another size
    single = [jax.tree.map(lambda a, i=i: a[i], tasks) for i in range(3)]
    shorter = single[2]._replace(query=jax.tree.map(lambda a: a[:4], single[2].query))
    some = jm.evaluate_episodes(learner, params, [*single[:2], shorter])
    np.testing.assert_allclose(
        some.per_task["loss"][:2], sampled.per_task["loss"][:2], rtol=1e-5
    )
    assert some.num_tasks == 3
    one = jm.evaluate_episodes(learner, params, single[:1])
    assert np.isnan(one.ci95["loss"])  # one task says nothing of the spread


def test_given_images_are_bytes_or_numbers():
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 4, 1), np.uint8)
    y = np.tile([0, 1, 2, 0, 1, 2], (2, 1))
    learner = jm.protonet(jm.models.mlp((4, 4, 1), 4, (8,)), ways=3)
    params = learner.init(jax.random.key(0))
    reports = [
        jm.evaluate_episodes(learner, params, jm.Task(jm.Batch(x, y), jm.Batch(x, y)))
        for x in (images, images.astype(np.float32) / 255)
    ]
    assert reports[0].mean == pytest.approx(reports[1].mean)


def test_given_episodes_that_do_not_fit_are_refused():
    learner = jm.protonet(jm.models.mlp(2, 4, (8,)), ways=2)
    params = learner.init(jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    y = np.tile([0, 1, 0, 1], (3, 1))

    def refused(sentence, *, sx=x, sy=y, qx=x, qy=y):
        tasks = jm.Task(jm.Batch(sx, sy), jm.Batch(qx, qy))
        with pytest.raises(ValueError, match=sentence):
            jm.evaluate_episodes(learner, params, tasks)

    wrong = y.copy()
    wrong[2, 1] = 2  # in the last task only
    refused(r"support labels: expected integers in 0..1 .*got \[2\]", sy=wrong)
    refused(r"query labels: expected integers in 0..1", qy=wrong)
    refused("tasks, inputs: 1 values are NaN", qx=np.where(x == x[2, 1, 0], np.nan, x))
    refused(r"arrays \[tasks, examples, ...\] of as many tasks", sy=y[:2])
    refused(r"arrays \[tasks, examples, ...\]", sx=x[0], sy=y[0], qx=x[0], qy=y[0])
    with pytest.raises(ValueError, match="at least one episode"):
        jm.evaluate_episodes(learner, params, [])


@jax.tree_util.register_pytree_node_class
class Around:
    """A sampler whose class has no `sample`: that of another, with all of its names."""

    def __init__(self, inner):
        self.__dict__["inner"] = inner

    def __getattr__(self, name):
        return getattr(self.__dict__["inner"], name)

    def tree_flatten(self):
        return (self.__dict__["inner"],), None

    @classmethod
    def tree_unflatten(cls, aux, children):
        del aux
        return cls(*children)


def test_a_sampler_whose_class_has_no_sample_is_trained_on():
    inner = jm.tasks.sinusoid(3, 3)
    learner = jm.maml(jm.models.mlp(hidden=(4,)), inner_lr=0.01, loss=jm.losses.mse)
    how = {"steps": 2, "chunk": 2, "key": jax.random.key(0)}
    plain, around = (
        jm.fit(learner, sampler, optax.sgd(0.1), **how).params
        for sampler in (inner, Around(inner))
    )
    assert largest_difference(plain, around) == 0
