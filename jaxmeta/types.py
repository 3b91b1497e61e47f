"""The nouns of the library: a batch, a task, a model, a meta-learner.

A meta-learner is four pure functions of ONE task. Everything else (task batches,
meta-gradients, training loops, devices) is a transformation of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax

PyTree = Any
Metrics = dict[str, jax.Array]
UNLABELLED = -1  # in y: an example without a label


class Batch(NamedTuple):
    """Examples of one task.

    x: [examples, ...] inputs, an array or a pytree of arrays (token ids and which of them
        count, an image and a table row).
    y: [examples, ...] targets; for classification integers in 0..ways-1, or in a
        support set `UNLABELLED` (-1): an example without a label. Learners that
        make use of such examples are marked in the registry, all others refuse them.
        For regression an array or a pytree of arrays; None = the loss needs none.
    mask: [examples], 1 = counts, 0 = padding; None = every example counts.
    """

    x: PyTree
    y: Any = None
    mask: jax.Array | None = None


class Task(NamedTuple):
    """What one task gives to learn from, and what it is judged on.

    A batch of tasks is the same tree with a leading [tasks] axis.
    """

    support: Batch
    query: Batch


class InitFn(Protocol):
    """key -> params."""

    def __call__(self, key: jax.Array, /) -> PyTree: ...


class ApplyFn(Protocol):
    """(params, x [examples, ...]) -> outputs [examples, ...]; see `Model.uses_mask`."""

    __call__: Callable[..., Any]


class Model(NamedTuple):
    """A network as a pair of pure functions.

    init: key -> params, all that is learned. What is frozen (running statistics, a
        pre-trained body) is a constant of `apply`.
    apply: (params, x [examples, ...]) -> outputs [examples, ...], without any noise.
    uses_mask: True if `apply` takes a third argument, mask [examples] or None, because
        what it says of one example depends on the others (batch norm): then padding
        must be left out of the statistics.
    noisy: (params, x, mask, key, step) -> outputs, the forward pass of training if it is
        random (dropout, DropBlock), see `jm.with_noise`; step [] meta-steps done.
    """

    init: InitFn
    apply: ApplyFn
    uses_mask: bool = False
    noisy: Callable[..., Any] | None = None


@partial(jax.tree_util.register_dataclass, data_fields=["x", "tag"], meta_fields=[])
@dataclass(frozen=True)
class Tagged:
    """Inputs, and what the network's pass over them needs besides.

    x: [examples, ...], as in `Batch`.
    tag: a pytree without an [examples] axis: the key of the noise (`jm.with_noise`),
        the examples whose statistics normalise (`jm.with_support_statistics`).
    """

    x: PyTree
    tag: PyTree

    def __jax_array__(self):
        raise ValueError(
            "with_noise, with_support_statistics: this learner computes with the inputs "
            "themselves, not only through the model; expected one that hands them to its "
            "model as they are, like maml or protonet"
        )


class AdaptFn(Protocol):
    """(params, support, key=None) -> adapted."""

    def __call__(
        self, params: PyTree, support: Batch, key: jax.Array | None = None
    ) -> PyTree: ...


class PredictFn(Protocol):
    """(adapted, inputs, mask=None) -> outputs; mask as in `Batch`."""

    def __call__(
        self, adapted: PyTree, inputs: PyTree, mask: jax.Array | None = None
    ) -> Any: ...


class LossFn(Protocol):
    """(params, task, key=None) -> (loss [], metrics)."""

    def __call__(
        self, params: PyTree, task: Task, key: jax.Array | None = None
    ) -> tuple[jax.Array, Metrics]: ...


class ObjectiveFn(Protocol):
    """(params, task, key, step) -> (value [], metrics); step [] meta-steps done."""

    def __call__(
        self, params: PyTree, task: Task, key: jax.Array | None, step: jax.Array
    ) -> tuple[jax.Array, Metrics]: ...


class SettleFn(Protocol):
    """(params, sampler) -> params; sampler: that of the training tasks."""

    def __call__(self, params: PyTree, sampler: Any, /) -> PyTree: ...


class MetaLearner(NamedTuple):
    """Four pure functions of one task.

    init: key -> params, all that is meta-learned and nothing else.
    adapt: (params, support, key=None) -> adapted, learns one task from its support set.
    predict: (adapted, inputs, mask=None) -> outputs; `adapted` is self-contained.
    loss: (params, task, key=None) -> (loss, metrics), what a test reports of one task,
        differentiable in params; the metric `loss` is its value.
    objective: (params, task, key, step) -> (value, metrics), what training descends in
        meta-step `step` where that is not `loss`: a surrogate (`reptile`), a bound
        (`neural_process`), a loss with penalties (`leo`) or of another problem
        (`baseline`); None = `loss`.
    settle: (params, sampler) -> params, sets what is not descended but known of the
        training set (`simpleshot`'s mean); `fit` does so before it validates and at the
        end, a loop of your own has to. None = nothing to set.
    """

    init: InitFn
    adapt: AdaptFn
    predict: PredictFn
    loss: LossFn
    objective: ObjectiveFn | None = None
    settle: SettleFn | None = None


class Outer(NamedTuple):
    """A training procedure, what `fit` runs: a learner with an optimiser, a population of
    them, an average of what one trains, or one of your own.

    init: key -> state, a pytree that keeps its shapes and has `params`, what is tested,
        and `step` [], meta-steps done.
    step: (state, sampler, key) -> (state, metrics), one meta-step; it draws its tasks.
    learner: whose parameters they are, for validation; None = `fit` can't validate.
    settle: (state, sampler) -> state, see `MetaLearner`; None = nothing to set.
    members: of a population, whose `init` and `step` take keys [members]; None = one key.
    mesh: of the devices that `step` runs on; None = one device.
    """

    init: Callable[[jax.Array], Any]
    step: Callable[[Any, Any, jax.Array], tuple[Any, Metrics]]
    learner: MetaLearner | None = None
    settle: Callable[[Any, Any], Any] | None = None
    members: int | None = None
    mesh: Any = None


class Online(NamedTuple):
    """A learner of a stream, whose parts come one after the other and not again.

    init: (key, batch) -> state, a pytree that keeps its shapes; of the batch, one of the
        stream, only shapes are used.
    observe: (state, batch, key) -> (state, metrics), learns from a minibatch in which
        some example counts; the metric `loss` is its loss.
    predict: (state, inputs) -> outputs.
    end: (state, part, key) -> state, what is done where a part ends, with all of its
        examples (`ewc`); None = the learner need not know where parts end.
    """

    init: Callable[[jax.Array, Batch], Any]
    observe: Callable[[Any, Batch, jax.Array], tuple[Any, Metrics]]
    predict: Callable[[Any, PyTree], Any]
    end: Callable[[Any, Batch, jax.Array], Any] | None = None


class Sampler(Protocol):
    """A task distribution: a pytree whose arrays are leaves, pure in its key."""

    def sample(self, key: jax.Array, /) -> Task:
        """Draw ONE task."""
        ...
