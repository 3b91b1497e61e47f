"""The contract that every learner keeps: `jm.testing.check_learner`.

Each function below `PROMISES` holds a `Trial` (a learner with a small problem) to one
promise, and raises AssertionError if it is broken. `check_learner` runs them all; the
suite of this library runs them on every registered learner.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta import keys, losses
from jaxmeta.batches import examples, to_device
from jaxmeta.outer import (
    MetaState,
    init_state,
    make_outer,
    meta_gradient,
    sample_tasks,
)
from jaxmeta.tasks.plain import as_pytree
from jaxmeta.training.evaluate import evaluate_episodes
from jaxmeta.training.fit import fit
from jaxmeta.types import Batch, MetaLearner, PyTree, Sampler, Task

UNSEEN = 256  # tasks that tell whether a loss fell
TASKS, MOMENTUM = 8, 0.9  # of a meta-step; of the first moment
OPTIMIZER = optax.adam(3e-3, MOMENTUM)  # one object: `fit` compiles anew for another
PADDING = 2  # examples of a support and of a query set that stand for nothing
SINGLE = 1e-4  # how far apart one number in two orders of single precision may be


@dataclass(frozen=True)
class Trial:
    """A learner with a problem that it learns in some hundred meta-steps.

    learner; sampler: of the tasks it is tested on, small ones. training: the sampler it
    trains on, where that is another. exact: whether the gradient of its loss is the
    loss's slope. transductive, unlabelled: as in `register`. closed: whether a class
    without support examples has no chance. steps: meta-steps after which its loss is
    lower.
    """

    learner: MetaLearner
    sampler: Sampler
    training: Sampler | None = None
    exact: bool = True
    transductive: bool = False
    unlabelled: bool = False
    closed: bool = False
    steps: int = 300

    @cached_property
    def params(self) -> PyTree:
        """Initial meta-parameters."""
        with jax.enable_x64(False):
            return self.start(jax.random.key(0)).params

    def start(self, key: jax.Array) -> MetaState:
        """The state before training."""
        return init_state(self.learner, OPTIMIZER, key)

    @cached_property
    def task(self) -> Task:
        """One task, by the program that draws those of a meta-step."""
        with jax.enable_x64(False):
            tasks = many_tasks(as_pytree(self.sampler), jax.random.key(1), TASKS)
        return jax.tree.map(lambda a: a[0], jax.device_get(tasks))

    @cached_property
    def whole(self) -> Task:
        """The same with masks of ones."""
        return Task(*(b._replace(mask=_ones(b)) for b in self.task))

    @cached_property
    def on_device(self) -> Callable:
        """(params, task) -> ((loss, metrics), its gradient), and what is predicted by adapt
        and predict: one program, since compiling is what takes the time."""
        slope = jax.value_and_grad(self.learner.loss, has_aux=True)
        return jax.jit(lambda *given: (slope(*given), self._predicted(*given)))

    @cached_property
    def _without_slope(self) -> Callable:
        loss = self.learner.loss
        return jax.jit(lambda *given: ((loss(*given), None), self._predicted(*given)))

    def _predicted(self, params: PyTree, task: Task):
        adapted = self.learner.adapt(params, task.support)
        return self.learner.predict(adapted, task.query.x, task.query.mask)

    def slope(self, params: PyTree, task: Task) -> tuple:
        """(loss, metrics), its gradient: in float64, as numpy arrays."""
        with jax.enable_x64(True):
            given = _wide((params, self.enlarged(task)))
            return jax.device_get(self.on_device(*given)[0])

    def both_doors(self, params: PyTree, task: Task) -> tuple:
        """(loss, metrics), and what is predicted by adapt and predict, likewise."""
        there = "on_device" in self.__dict__  # else the gradient is not needed
        program = self.on_device if there else self._without_slope
        with jax.enable_x64(True):
            given = _wide((params, self.enlarged(task)))
            (value, _), outputs = jax.device_get(program(*given))
        return value, jax.tree.map(lambda a: a[: examples(self.task.query)], outputs)

    @cached_property
    def eager(self) -> tuple:
        """(loss, metrics) of the task as it is, without jit, in float64."""
        with jax.enable_x64(True):
            return self.learner.loss(double(self.params), double(self.task))

    def enlarged(self, task: Task, fill: float = 0.0) -> Task:
        """With padding, so that one program serves all that is asked of a task."""
        wanted = [examples(b) + PADDING for b in self.task]
        sizes = [n - examples(b) for n, b in zip(wanted, task, strict=True)]
        return Task(*(pad(b, n, fill) for b, n in zip(task, sizes, strict=True)))

    @property
    def classifies(self) -> bool:
        """Whether its targets are classes."""
        return losses.are_labels(self.task.query.y)

    @property
    def learns(self) -> bool:
        """Whether there is anything to meta-learn."""
        return bool(jax.tree.leaves(self.params))

    def train(self, steps: int, seed: int, state: MetaState | None = None) -> MetaState:
        """The state after some meta-steps, from a given one or from the start."""
        key = jax.random.key(seed)
        return fit(
            self.learner,
            self.training or self.sampler,
            OPTIMIZER,
            steps=steps,
            key=key,
            tasks_per_step=TASKS,
            state=self.start(keys.init(key)) if state is None else state,
        )


def check_learner(
    learner: MetaLearner,
    sampler: Sampler,
    *,
    training: Sampler | None = None,
    exact: bool = True,
    transductive: bool = False,
    unlabelled: bool = False,
    steps: int = 300,
) -> None:
    """Hold a learner of your own to all that the learners of this library keep.

    Args:
        learner: e.g. what a constructor under `@jm.learners.register(...)` gives.
        sampler: of small tasks that it learns in some hundred meta-steps.
        training: the sampler it trains on, where that is another.
        exact: whether the gradient of its loss is the loss's slope.
        transductive, unlabelled: as in `register`.
        steps: meta-steps after which its loss is lower.

    Raises: AssertionError that begins with the promise that is broken.

    >>> import jaxmeta as jm
    >>> network = jm.models.mlp(hidden=(8,))
    >>> learner = jm.maml(network, inner_lr=0.01, loss=jm.losses.mse)
    >>> jm.testing.check_learner(learner, jm.tasks.sinusoid(shots=5, queries=5))
    """
    trial = Trial(
        learner,
        sampler,
        training,
        exact=exact,
        transductive=transductive,
        unlabelled=unlabelled,
        steps=steps,
    )
    for name, promise in PROMISES.items():
        try:
            promise(trial)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def loss_falls(trial: Trial) -> None:
    """Training lowers the loss of unseen tasks by more than four standard errors; or at
    least what it descends, where that is something else on the same tasks."""
    if not trial.learns:
        return
    objective = trial.learner.objective
    own = trial.training is None or trial.training is trial.sampler
    tasks = unseen_tasks(as_pytree(trial.sampler), jax.random.key(2))
    few = jax.tree.map(lambda a: a[: UNSEEN // 4], tasks)

    def judge(params: PyTree, task: Task):
        with jax.enable_x64(True):
            return trial.on_device(params, _wide(trial.enlarged(task)))[0][0][0]

    start = trained = trial.start(jax.random.key(0))
    for steps, seen in ((trial.steps // 3, few), (trial.steps, tasks)):
        trained = trial.train(steps, seed=3, state=trained)
        ends = start.params, trained.params
        with jax.enable_x64(True):
            wide = jax.device_put(_wide(ends))
        gain = _gain(judge, wide, seen)
        if _fell(gain):  # mostly after a third of the steps, on a quarter of the tasks
            return
    if objective is not None and own:
        step = jnp.asarray(trial.steps)
        descended = jax.jit(lambda p, task: objective(p, task, None, step)[0])
        gain = _gain(descended, ends, tasks)
    assert _fell(gain), "it did not fall"


def _fell(gain: np.ndarray) -> bool:
    return bool(gain.mean() > 4 * gain.std() / len(gain) ** 0.5)


def _gain(judge, ends: tuple[PyTree, PyTree], tasks: Task) -> np.ndarray:
    """By how much `judge` fell from one end to the other, [tasks]; one task after the
    other, since the program of one is there."""
    number = len(jax.tree.leaves(tasks)[0])
    each = [jax.tree.map(lambda a, i=i: a[i], tasks) for i in range(number)]
    before, after = ([judge(params, task) for task in each] for params in ends)
    return np.subtract(*jax.device_get((before, after)))


def jit_equals_eager(trial: Trial) -> None:
    """And nothing falls back to single precision."""
    (value, metrics), _ = trial.slope(trial.params, trial.task)
    np.testing.assert_allclose(trial.eager[0], value, rtol=1e-9)
    assert trial.eager[1].keys() == metrics.keys()
    assert trial.eager[0].dtype == jnp.float64, trial.eager[0].dtype


def the_loss_is_reported(trial: Trial) -> None:
    """The value of `loss` is its metric `loss`."""
    (value, metrics), _ = trial.both_doors(trial.params, trial.task)
    np.testing.assert_allclose(value, metrics["loss"], rtol=1e-6)


def tasks_at_once_change_no_number(trial: Trial) -> None:
    """The meta-gradient of the first step of a training, whose tasks are in one vmap, is
    that of its tasks one after the other."""
    if not trial.learns:
        return
    learner, sampler = trial.learner, trial.training or trial.sampler
    key = keys.data(jax.random.key(4))
    key_tasks, key_loss = keys.parts(keys.step(key, 0))
    tasks = jax.device_get(many_tasks(as_pytree(sampler), key_tasks, TASKS))
    first = trial.train(1, seed=4, state=trial.start(jax.random.key(0)))
    moment = first.opt_state[0].mu
    together = jax.tree.map(lambda m: np.asarray(m) / (1 - MOMENTUM), moment)
    if learner.objective is None and sampler is trial.sampler:
        each = [jax.tree.map(lambda a, i=i: a[i], tasks) for i in range(TASKS)]
        alone = [trial.slope(trial.params, task)[1] for task in each]
        alone = jax.tree.map(lambda *a: np.mean(a, axis=0), *alone)
        if largest_difference(alone, together) < SINGLE:
            return
    one_by_one = jax.jit(meta_gradient(learner, 1))  # an objective, or chance
    alone = one_by_one(trial.params, tasks, key_loss)[1]
    assert largest_difference(alone, together) < SINGLE


def state_is_stable(trial: Trial) -> None:
    """A meta-step keeps the state's tree, shapes and types, weak ones too, so the second
    compiles nothing."""
    outer = make_outer(trial.learner, OPTIMIZER, tasks_per_step=TASKS)
    sampler, key = as_pytree(trial.training or trial.sampler), jax.random.key(0)
    before = jax.eval_shape(outer.init, key)
    after = jax.eval_shape(outer.step, before, sampler, key)[0]
    assert after == before, (before, after)
    weak = lambda tree: [a.weak_type for a in jax.tree.leaves(tree)]
    assert weak(after) == weak(before)


def masked_examples_change_nothing(trial: Trial) -> None:
    """Whatever stands in the padding: the same bits, and without it the same number."""
    filled = lambda fill: trial.enlarged(trial.task, fill)
    loss = lambda fill: trial.slope(trial.params, filled(fill))[0]
    masked = [loss(fill) for fill in (0.0, 1e30, np.nan)]
    for value, metrics in masked:
        assert value == masked[0][0], "the padding changes the loss"
        assert metrics == masked[0][1], "the padding changes the metrics"
    # sums over another number of terms are added up in another order
    np.testing.assert_allclose(masked[0][0], trial.eager[0], rtol=1e-9)


def masked_examples_change_no_gradient(trial: Trial) -> None:
    """Not even NaN in the padding."""
    if not trial.learns:
        return
    tasks = (trial.enlarged(trial.task, fill) for fill in (np.nan, 0.0))
    gradients = (trial.slope(trial.params, task)[1] for task in tasks)
    assert largest_difference(*gradients) < 1e-12


def same_key_same_result(trial: Trial) -> None:
    """And another key another one."""
    if not trial.learns:
        return
    first, again, other = (
        jax.tree.leaves(jax.device_get(trial.train(3, seed).params))
        for seed in (0, 0, 1)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def gradient_is_the_slope(trial: Trial) -> None:
    """The gradient of the loss is that of finite differences, in two directions."""
    if not trial.exact or not trial.learns:
        return
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), trial.params)
    _, slope = trial.slope(params, trial.task)
    random = np.random.default_rng(0)
    draw = lambda a: random.normal(size=a.shape)
    for along in (jax.tree.map(draw, params), jax.tree.map(draw, params)):
        moved = lambda e, v=along: jax.tree.map(lambda p, v: p + e * v, params, v)
        up, down = (trial.slope(moved(e), trial.task)[0][0] for e in (1e-6, -1e-6))
        products = jax.tree.map(lambda s, v: (s * v).sum(), slope, along)
        found, numeric = sum(jax.tree.leaves(products)), (up - down) / 2e-6
        np.testing.assert_allclose(found, numeric, rtol=1e-5, atol=1e-7)


def adapted_is_self_contained(trial: Trial) -> None:
    """predict(adapt(...)) is all that the accuracy of a test is made of."""
    with jax.enable_x64(True):  # as in `jit_equals_eager`: compiled
        params, task = double(trial.params), double(trial.task)
        adapted = trial.learner.adapt(params, task.support)
        outputs = jax.device_get(trial.learner.predict(adapted, task.query.x))
    (_, metrics), _ = trial.both_doors(trial.params, trial.task)
    if trial.classifies:
        accuracy = np.mean(outputs.argmax(-1) == np.asarray(trial.task.query.y))
        np.testing.assert_allclose(accuracy, metrics["accuracy"], rtol=1e-6)
    else:
        gaussian = isinstance(outputs, tuple)
        mean = np.asarray(outputs[0] if gaussian else outputs)
        error = np.mean(np.square(mean - np.asarray(trial.task.query.y)))
        np.testing.assert_allclose(
            error, metrics["mse" if gaussian else "loss"], rtol=1e-5
        )


def transductive_or_not(trial: Trial) -> None:
    """A prediction depends on the other inputs it is asked with, or it does not."""
    if not trial.classifies:
        return
    support, query = trial.whole
    places = np.arange(3, examples(query)) % examples(support)
    other = lambda a, b: np.concatenate([a[:3], np.asarray(b)[places]])
    others = query._replace(x=jax.tree.map(other, query.x, support.x))
    first = lambda query: np.asarray(
        trial.both_doors(trial.params, trial.whole._replace(query=query))[1][:3]
    )
    same = np.array_equal(first(query), first(others))
    assert same != trial.transductive, f"transductive={trial.transductive} is not true"


def an_empty_support_set_is_refused(trial: Trial) -> None:
    """With a sentence."""
    empty = jax.tree.map(lambda a: a[:0], trial.task.support)
    said = _refusal(trial.learner.adapt, trial.params, empty)
    assert "support set is empty" in said, said


def labels_out_of_range_are_refused(trial: Trial) -> None:
    """With a sentence, where they can be seen; -1 is allowed in a support set of some."""
    if not trial.classifies:
        return
    with jax.enable_x64(True):  # as in `jit_equals_eager`: compiled
        params, task = double(trial.params), double(trial.task)
        for label in (-2 if trial.unlabelled else -1, 99):
            support = task.support._replace(y=_with(task.support.y, 1, label))
            said = _refusal(trial.learner.adapt, params, support)
            assert f"got [{label}]" in said, said
        for label in (-1, 99):  # a query always has a label
            query = task.query._replace(y=_with(task.query.y, 1, label))
            said = _refusal(trial.learner.loss, params, task._replace(query=query))
            assert "query labels: expected integers in 0.." in said, said


def what_cannot_be_learnt_from_is_nan(trial: Trial) -> None:
    """Under jit, where nothing can be refused, through both doors."""
    both = lambda given: trial.both_doors(trial.params, given)
    task = trial.whole
    (value, metrics), outputs = both(task)
    assert all(np.isfinite(v) for v in [value, *metrics.values()])
    assert not any(np.isnan(a).any() for a in jax.tree.leaves(outputs))
    for where in ("support", "query"):
        for what, batch in spoilt(getattr(trial.task, where)).items():
            given = task._replace(**{where: batch})
            (value, metrics), outputs = both(given)
            if what == "label -1" and where == "support" and trial.unlabelled:
                assert np.isfinite(value), "an unlabelled example"
                continue
            seen = {"value": value, **metrics}
            if where == "support" and seen.get("accuracy") == 0:
                del seen["accuracy"]  # a prediction of NaN is no right one
            assert all(np.isnan(v) for v in seen.values()), (where, what, seen)
            if where == "support":  # the other door: adapt, then predict
                leaves = jax.tree.leaves(outputs)
                gone = [np.isnan(a) | np.isneginf(a) for a in leaves]
                assert all(a.all() for a in gone), what


def an_absent_class_has_no_chance(trial: Trial) -> None:
    """A class without support examples is never predicted, and the loss is finite."""
    if not trial.closed or not trial.classifies:
        return
    support, query = trial.task
    last = int(np.max(query.y))
    without = lambda b: b._replace(mask=np.asarray(b.y != last, np.float32))
    given = Task(without(support), without(query))
    (value, _), outputs = trial.both_doors(trial.params, given)
    assert np.isfinite(value), value
    counted = np.asarray(outputs)[np.asarray(given.query.mask) > 0]
    assert np.isneginf(counted[:, last]).all() and np.isfinite(counted[:, :last]).all()


def bytes_are_images(trial: Trial) -> None:
    """uint8 inputs are 0..255, through every door."""
    random = np.random.default_rng(0)
    draw = lambda a: random.integers(0, 256, a.shape).astype(np.uint8)
    given = Task(*(b._replace(x=jax.tree.map(draw, b.x)) for b in trial.task))
    small = lambda a: a.astype(np.float32) / 255
    scaled = Task(*(b._replace(x=jax.tree.map(small, b.x)) for b in given))
    with jax.enable_x64(True):  # as in `jit_equals_eager`: compiled
        params, given, scaled = (double(tree) for tree in (trial.params, given, scaled))
        value, _ = trial.learner.loss(params, given)
        again, metrics = trial.learner.loss(params, scaled)
        np.testing.assert_allclose(value, again, 1e-5, 1e-7)
        batch = jax.tree.map(lambda a: np.asarray(a)[None], given)
        report = evaluate_episodes(trial.learner, params, batch)
        np.testing.assert_allclose(report.mean["loss"], metrics["loss"], rtol=1e-4)


def half_precision_is_learnt_from(trial: Trial) -> None:
    """Traced only: what has no half precision says so while it is traced."""
    half = lambda tree: _cast(tree, jnp.bfloat16)
    loss = lambda p, t: trial.learner.loss(p, t)[0].astype(jnp.float32)
    found = jax.eval_shape(jax.grad(loss), half(trial.params), half(trial.task))
    assert jax.tree.structure(found) == jax.tree.structure(trial.params)


PROMISES: dict[str, Callable[[Trial], None]] = {
    f.__name__: f
    for f in (
        *(loss_falls, masked_examples_change_nothing),
        *(masked_examples_change_no_gradient, jit_equals_eager, the_loss_is_reported),
        *(tasks_at_once_change_no_number, state_is_stable),
        *(same_key_same_result, gradient_is_the_slope, adapted_is_self_contained),
        *(transductive_or_not, an_empty_support_set_is_refused),
        *(labels_out_of_range_are_refused, what_cannot_be_learnt_from_is_nan),
        *(an_absent_class_has_no_chance, bytes_are_images),
        half_precision_is_learnt_from,
    )
}


@jax.jit
def one_task(sampler: Any, key: jax.Array) -> Task:
    """A task of a sampler that is a pytree: one program for all that share it."""
    return sampler.sample(key)


@partial(jax.jit, static_argnums=2)
def many_tasks(sampler: Any, key: jax.Array, number: int) -> Task:
    """`sample_tasks`, likewise."""
    return sample_tasks(sampler, key, number)


def unseen_tasks(sampler: Any, key: jax.Array) -> Task:
    """UNSEEN tasks, by the same program."""
    parts = jax.random.split(key, UNSEEN // TASKS)
    drawn = [jax.device_get(many_tasks(sampler, key, TASKS)) for key in parts]
    return jax.tree.map(lambda *a: np.concatenate(a), *drawn)


def spoilt(batch: Batch) -> dict[str, Batch]:
    """What no number may come of: all of one shape, so that one program serves all."""
    ones = _ones(batch)
    whole = batch._replace(mask=ones)
    first = lambda value: lambda a: _with(a, 0, value) if _floating(a) else a
    with_x = lambda value: whole._replace(x=jax.tree.map(first(value), batch.x))
    made = {
        "NaN input": with_x(np.nan),
        "infinite input": with_x(np.inf),
        "empty": whole._replace(mask=0 * ones),
        "NaN mask": whole._replace(mask=np.nan * ones),
        "one NaN in the mask": whole._replace(mask=_with(ones, 0, np.nan)),
    }
    if losses.are_labels(batch.y):
        ways = int(np.max(batch.y)) + 1
        labels = {-1: _with(batch.y, 0, -1), "far": _with(batch.y, -1, ways)}
        made |= {f"label {k}": whole._replace(y=y) for k, y in labels.items()}
        far = np.full_like(np.asarray(batch.y), 2**30)
        made["labels far out"] = whole._replace(y=far)
    else:
        made["NaN target"] = whole._replace(y=jax.tree.map(first(np.nan), batch.y))
    return made


def _with(a, place: int, value) -> np.ndarray:
    """A copy with another value; of numpy, which compiles nothing."""
    copy = np.array(a)
    copy[place] = value
    return copy


def _ones(batch: Batch) -> np.ndarray:
    return np.ones(examples(batch), np.float32)


def double(tree: PyTree) -> PyTree:
    """All floating leaves in float64."""
    return _cast(tree, jnp.float64)


def pad(batch: Batch, extra: int, fill: float) -> Batch:
    """`extra` masked examples of nonsense appended; 0 = only a mask, if there is none."""
    there = _ones(batch) if batch.mask is None else batch.mask

    def longer(a):
        # NaN is not an integer; 99 is no label of any task
        value = fill if _floating(a) else 99
        rows = np.full((extra, *a.shape[1:]), value, a.dtype)
        return jnp.concatenate([a, rows]) if _traced(a) else _joined(a, rows)

    mask = _joined(there, np.zeros(extra, np.float32))
    x, y, _ = jax.tree.map(longer, batch._replace(mask=None))
    return Batch(x, y, mask)


def largest_difference(a: PyTree, b: PyTree) -> float:
    """max |a - b| over two trees, relative to the largest entry of b; 0 of equal ones."""
    a, b = (jax.tree.leaves(jax.device_get(tree)) for tree in (a, b))
    wide = lambda leaf: np.asarray(leaf, np.result_type(leaf, np.float64))
    differences = [np.abs(wide(p) - wide(q)).max() for p, q in zip(a, b, strict=True)]
    largest, scale = max(differences), max(np.abs(wide(leaf)).max() for leaf in b)
    return float(largest / scale) if scale else float(np.inf if largest else 0)


def _traced(a) -> bool:
    return isinstance(a, jax.core.Tracer)


def _joined(a, b) -> Any:
    return np.concatenate([a, b])


def _floating(a) -> bool:
    return bool(jnp.issubdtype(a.dtype, jnp.floating))


def _wide(tree: PyTree) -> PyTree:
    """All floating leaves as float64 arrays of numpy, which compiles nothing."""
    wide = lambda a: np.asarray(a, np.float64) if _floating(a) else a
    return jax.tree.map(wide, tree)


def _cast(tree, dtype):
    cast = lambda a: to_device((a if _traced(a) else np.asarray(a)).astype(dtype))
    return jax.tree.map(lambda a: cast(a) if _floating(a) else a, tree)


def _refusal(call: Callable, *args) -> str:
    """The sentence of the ValueError that a call raises."""
    try:
        call(*args)
    except ValueError as error:
        return str(error)
    raise AssertionError("it was taken without a word")
