"""Where a user's data meet a learner: the same rules through every door.

`@learner` stands above the constructor of each meta-learner. Whatever the learner is,
then, `adapt`, `predict`, `loss` and what training descends

- take uint8 inputs as images in 0..255, to 0..1; other integers stay what they are;
- refuse batches whose shapes do not fit, and labels out of range where they can be seen;
- under jit, where they can't be seen, make NaN of what depends on them: a label out of
  range, an empty or NaN mask, an input that is not finite never give a plausible number;
- run as one compiled program a shape when called outside jit;

and the same arguments give the same learner, whose programs are compiled once.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state

from jaxmeta import checks, losses
from jaxmeta.batches import blank_padding, examples, to_device
from jaxmeta.types import UNLABELLED, Batch, MetaLearner, PyTree, Task

P = ParamSpec("P")
R = TypeVar("R")
KEPT = 16  # learners and networks of a kind that are remembered, with their programs


def remembered(make: Callable[P, R]) -> Callable[P, R]:
    """`make`, which gives the same object for the same arguments.

    What is made are functions, and a program is compiled for a function: made anew, they
    would be compiled anew. Arguments that can't be compared (arrays) are not remembered,
    nor is what is made while a program is traced, since it may hold on to it. As in
    `jax.jit`, functions among the arguments (a loss) are taken to be pure.
    """

    again: Callable[..., R] = make

    @functools.lru_cache(KEPT)
    def known(call: _Call) -> R:
        return again(*call.args, **call.kwargs)

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> R:
        call = _Call(args, kwargs)
        try:
            hash(call)
        except TypeError:
            return make(*args, **kwargs)
        return make(*args, **kwargs) if is_tracing() else known(call)

    return made


class _Call:
    """Arguments that are equal only if they are of equal types, through and through."""

    def __init__(self, args, kwargs):
        self.args, self.kwargs = args, kwargs
        self._known = with_types((args, kwargs))

    def __eq__(self, other):
        return self._known == other._known

    def __hash__(self):
        return hash(self._known)


def with_types(value: Any) -> Any:
    """A value with its type, and so all that it holds: 1, 1.0 and True are three.

    >>> with_types((1,)) == with_types((True,)), hash(with_types((1,))) is not None
    (False, True)
    """
    if isinstance(value, dict):
        held = tuple((name, with_types(v)) for name, v in value.items())
    elif isinstance(value, (tuple, list)):
        held = tuple(map(with_types, value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (f.name for f in dataclasses.fields(value) if f.compare)
        held = (value, *(with_types(getattr(value, name, None)) for name in names))
    else:
        held = value
    return type(value), held


def is_tracing() -> bool:
    """Whether a program is being traced, or mapped."""
    now = get_opaque_trace_state(convention="flax")
    with jax.core.eval_context():
        return now != get_opaque_trace_state(convention="flax")


def learner(
    make: Callable[..., MetaLearner] | None = None,
    *,
    targets: Literal["values"] | None = None,
    unlabelled: bool | Literal["required"] = False,
) -> Any:
    """Decorator of a constructor: its learner behind the boundary, see the module.

    Args:
        make: the constructor. What it is called with tells of the tasks: `ways` (None =
            regression), `classes` (training is on classes), `loss`.
        targets: "values" of a learner of regression alone; None = known from their type.
        unlabelled: whether the support set may have examples labelled `UNLABELLED`, or has
            to ("required", where it can be seen).
    """
    if make is None:
        return functools.partial(learner, targets=targets, unlabelled=unlabelled)
    signature = inspect.signature(make)

    @remembered
    @functools.wraps(make)
    def constructor(*args, **kwargs):
        made = make(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        given = given.arguments
        kind = targets
        if given.get("ways", 0) is None or _says(given.get("loss")) == "values":
            kind = "values"
        return _Boundary(
            made, kind, given.get("ways"), "classes" in given, unlabelled
        ).learner()

    return constructor


class _Boundary:
    """A learner, and what is known of its tasks."""

    def __init__(self, plain, targets, ways, on_classes, unlabelled):
        self.plain, self.targets, self.ways = plain, targets, ways
        self.on_classes, self.unlabelled = on_classes, unlabelled
        self.adapt_once = jax.jit(self._adapt)
        self.predict_once = jax.jit(plain.predict)
        self.loss_once = jax.jit(self._loss)
        self.outputs = jax.jit(
            lambda params, support: plain.predict(
                plain.adapt(params, support), support.x, support.mask
            )
        )

    def learner(self) -> MetaLearner:
        return MetaLearner(
            self.plain.init,
            self.adapt,
            self.predict,
            self.loss,
            self.plain.objective and self.objective,
            self.plain.settle,
        )

    def adapt(self, params, support, key=None):
        _check_key(key)
        support = self._enter(support, "support")
        self._look(params, Task(support, support), only_support=True)
        run = self.adapt_once if _concrete(params, support, key) else self._adapt
        return run(params, support, key)

    def predict(self, adapted, inputs, mask=None):
        inputs, mask = entered(inputs, "inputs"), _mask(mask)
        checks.check_mask(inputs, mask)
        concrete = _concrete(adapted, inputs, mask)
        run = self.predict_once if concrete else self.plain.predict
        return run(adapted, inputs, mask)

    def loss(self, params, task, key=None):
        _check_key(key)
        task = self.looked_at(params, task, training=False)
        run = self.loss_once if _concrete(params, task, key) else self._loss
        return run(params, task, key)

    def objective(self, params, task, key, step):
        task = self.looked_at(params, task, training=True)
        ways = None if self.on_classes else self.ways
        found = self.plain.objective(params, task, key, step)
        return _spoiled(found, self._sound(task, ways))

    def looked_at(self, params, task, training: bool):
        """The task as it enters, after a look at what can be seen of it."""
        task = self._task(task)
        if not (training and self.plain.objective and self.on_classes):
            self._look(params, task)
        return task

    def _adapt(self, params, support, key):
        adapted = self.plain.adapt(params, support, key)
        sound = soundness(support, self._labels(support, self.ways), self.unlabelled)
        shared = {id(leaf) for leaf in jax.tree.leaves(params)}
        # what is a meta-parameter stays one array for all tasks
        spoil = lambda leaf: leaf if id(leaf) in shared else _times(leaf, sound)
        return jax.tree.map(spoil, adapted)

    def _loss(self, params, task, key):
        found = self.plain.loss(params, task, key)
        return _spoiled(found, self._sound(task, self.ways))

    def _sound(self, task, ways):
        support, query = (self._labels(batch, ways) for batch in task)
        return soundness(task.support, support, self.unlabelled) * soundness(
            task.query, query
        )

    def _labels(self, batch, ways) -> int | None:
        """The number of classes, 0 if unknown; None if the targets are no labels."""
        return (ways or 0) if losses.are_labels(batch.y) else None

    def _task(self, task):
        checks.check_kind(task, Task, "task")
        return Task(
            self._enter(task.support, "support"), self._enter(task.query, "query")
        )

    def _enter(self, batch, what) -> Batch:
        checks.check_kind(batch, Batch, what)
        batch = Batch(
            entered(batch.x, f"{what} inputs"),
            jax.tree.map(lambda a: _array(a, f"{what} targets"), batch.y),
            _mask(batch.mask),
        )
        checks.check_batch(batch, what)
        if not losses.are_labels(batch.y):
            return blank_padding(batch)
        if self.targets == "values":
            batch = batch._replace(y=batch.y.astype(jnp.result_type(float)))
        elif jnp.issubdtype(batch.y.dtype, jnp.unsignedinteger):  # it has no -1
            batch = batch._replace(y=batch.y.astype(jnp.int32))
        return blank_padding(batch)

    def _look(self, params, task, only_support=False):
        """Raise ValueError for labels out of range, where they can be seen, and for
        targets that are none where there are `ways`."""
        if not losses.are_labels(task.support.y) and not self.ways:
            return
        ways = self.ways
        if ways is None:
            outputs = self.outputs.eval_shape(params, task.support)
            ways = losses.classes_of(outputs)
        checks.check_labels(task.support, ways, unlabelled=bool(self.unlabelled))
        if self.unlabelled == "required":
            checks.check_unlabelled(task.support)
        if not only_support:
            checks.check_labels(task.query, ways, "query")


def looked(learner: MetaLearner, params, task, training: bool = False) -> bool:
    """Whether a learner is behind the boundary, where it has had its look at a task whose
    values can be seen: any other must be traced with it.

    Raises: ValueError for a task that it refuses to be tested on, or to be trained on.
    """
    door = getattr(learner.loss, "__self__", None)
    if not isinstance(door, _Boundary):
        return False
    door.looked_at(params, task, training)
    return True


def _check_key(key) -> None:
    if key is not None:
        checks.check_key(key)


def entered(x: PyTree, what: str = "inputs") -> PyTree:
    """Inputs as every door takes them: uint8 as 0..255 to 0..1, all else as it is."""

    return jax.tree.map(lambda a: to_float(_array(a, what)), x)


def to_float(images: jax.Array) -> jax.Array:
    """uint8 0..255 as 0..1; other integers (tokens) and floating numbers as they are."""
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    return images


def _array(a, what):
    """An array of numbers in the machine's own byte order."""
    if isinstance(a, jax.Array):
        return a
    try:
        a = np.asarray(a)
        array = to_device(checks.native(a))
    except TypeError as error:
        raise ValueError(f"{what}: expected numbers, got {checks.said(a)}") from error
    cut = a.dtype.kind in "iu" and a.itemsize > array.itemsize
    if cut and not np.array_equal(a, a.astype(array.dtype)):
        raise ValueError(f"{what}: expected whole numbers of 32 bits, got larger ones")
    return array


def _mask(mask):
    return None if mask is None else _array(mask, "mask")


def _concrete(*trees) -> bool:
    return not any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves(trees))


def are_values(tree: Any) -> bool:
    """Whether all leaves are arrays or numbers, and none is traced."""
    leaves = jax.tree.leaves(tree)
    kinds = jax.Array, np.ndarray, float  # an int may be a shape
    traced = any(isinstance(a, jax.core.Tracer) for a in leaves)
    return not traced and all(isinstance(a, kinds) for a in leaves)


def soundness(batch: Batch, ways: int | None, unlabelled=False) -> jax.Array:
    """[] 1.0; NaN if the batch can't be learnt from or judged on.

    Args: batch, its padding blank; ways: as `_Boundary._labels`.
    """
    counts = jnp.ones(examples(batch), bool) if batch.mask is None else batch.mask > 0
    fine = jnp.any(counts)
    if batch.mask is not None and jnp.issubdtype(batch.mask.dtype, jnp.floating):
        fine &= ~jnp.any(jnp.isnan(batch.mask))
    for leaf in jax.tree.leaves((batch.x, batch.y)):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            fine &= jnp.all(jnp.isfinite(leaf))
    if ways is not None:
        within = (batch.y >= 0) & (batch.y < (ways or np.iinfo(np.int32).max))
        if unlabelled:
            fine &= jnp.any(within & counts)
            unknown = batch.y == UNLABELLED
            if unlabelled == "required":
                fine &= jnp.any(unknown & counts)
            within |= unknown
        fine &= jnp.all(within | ~counts)
    return jnp.where(fine, 1.0, jnp.nan)


def _spoiled(found, sound):
    """(loss, metrics), all NaN unless the task is sound; so is their derivative."""
    return jax.tree.map(lambda a: _times(a, sound), found)


def _times(a, sound):
    if not jnp.issubdtype(a.dtype, jnp.floating):
        return a
    return a * sound.astype(a.dtype)


def _says(loss) -> str | None:
    return None if loss is None else losses.outputs_of(loss)
