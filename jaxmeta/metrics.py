"""What else a test can tell: scores of one task for `evaluate(metrics=...)`, and of all
tasks together: calibration, scores of each class, confusion.

A score is `f(outputs, query) -> {name: [] value}`, of what was predicted for a query set.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks, keys, losses, meshes
from jaxmeta.ranking import ranking as ranking
from jaxmeta.task_axis import over_tasks
from jaxmeta.tasks.plain import as_pytree
from jaxmeta.types import Batch, Metrics

Score = Callable[[Any, Batch], Metrics]
RESAMPLES = 1000  # of tasks, for intervals of what is no mean over tasks


def classification(outputs: jax.Array, query: Batch) -> Metrics:
    """Macro-averaged precision, recall and F1 over the classes of a task, and the mean
    log-likelihood of the right class.

    A class that is never predicted has precision and F1 0. Classes without a query example
    are left out. With a label out of range that counts, all are NaN.

    Args: outputs: logits [query, ways]; query: with labels [query].
    Returns: "log_likelihood" (nats), "precision", "recall", "f1", [] each.
    Raises: ValueError for other shapes, or labels that are no integers.

    >>> logits = 9.0 * jax.nn.one_hot(jnp.array([0, 1, 1, 1]), 2)
    >>> scores = classification(logits, Batch(None, jnp.array([0, 0, 1, 1])))
    >>> {name: round(float(value), 3) for name, value in scores.items()}
    {'log_likelihood': -2.25, 'precision': 0.833, 'recall': 0.75, 'f1': 0.733}
    """
    if jnp.ndim(outputs) != 2 or outputs.shape[:1] != jnp.shape(query.y):
        raise ValueError(
            "metrics.classification: expected logits [query, ways] and labels [query], "
            f"got shapes {jnp.shape(outputs)} and {jnp.shape(query.y)}"
        )
    if not losses.are_labels(query.y):
        raise ValueError(
            "metrics.classification: expected labels that are integers in 0..ways-1, got "
            f"{checks.said(query.y)}"
        )
    ways = outputs.shape[-1]
    counts = _counts(query, outputs.dtype)
    of_class = jax.nn.one_hot(query.y, ways, dtype=outputs.dtype) * counts[:, None]
    wrong = jnp.any((jnp.sum(of_class, axis=1) == 0) & (counts > 0))
    sound = jnp.where(wrong, jnp.nan, 1.0).astype(outputs.dtype)
    found = jax.nn.one_hot(jnp.argmax(outputs, -1), ways, dtype=outputs.dtype)
    found = found * counts[:, None]
    right = jnp.sum(of_class * found, axis=0)
    wanted, said = jnp.sum(of_class, axis=0), jnp.sum(found, axis=0)
    there = (wanted > 0).astype(outputs.dtype)
    share = lambda a, b: a / jnp.where(b > 0, b, 1)
    macro = lambda each: sound * jnp.sum(each * there) / jnp.sum(there)
    log_p = jnp.sum(jax.nn.log_softmax(outputs) * of_class, where=of_class > 0)
    return {
        "log_likelihood": sound * log_p / jnp.sum(counts),
        "precision": macro(share(right, said)),
        "recall": macro(share(right, wanted)),
        "f1": macro(share(2 * right, wanted + said)),
    }


def regression(outputs: Any, query: Batch) -> Metrics:
    """Mean squared error; and of a Gaussian, (mean, standard deviation) [query, ...] each,
    the mean log-likelihood of a target.

    Args: outputs: [query, ...], or a pair of them; query: with targets [query, ...].
    Returns: "mse", and of a Gaussian "log_likelihood" (nats a target), [] each.
    Raises: ValueError if the shapes differ.

    >>> query = Batch(None, jnp.ones((3, 1)))
    >>> float(regression(jnp.zeros((3, 1)), query)["mse"])
    1.0
    """
    gaussian = isinstance(outputs, tuple)
    mean, std = outputs if gaussian else (outputs, jnp.ones_like(outputs))
    if {mean.shape, std.shape} != {jnp.shape(query.y)}:
        raise ValueError(
            f"metrics.regression: outputs have shape {mean.shape}, targets "
            f"{jnp.shape(query.y)}; expected one shape, e.g. [query, 1] for both"
        )
    counts = _counts(query, mean.dtype)
    average = lambda each: (
        jnp.sum(jnp.mean(jnp.reshape(each, (len(each), -1)), axis=1) * counts)
        / jnp.sum(counts)
    )
    scores = {"mse": average((mean - query.y) ** 2)}
    if gaussian:
        each = jax.scipy.stats.norm.logpdf(query.y, mean, std)
        scores["log_likelihood"] = average(each)
    return scores


class Calibration(NamedTuple):
    """How far what a learner says of its certainty is true.

    ece: expected calibration error; ci95: half its 95 % interval over tasks. share,
    confidence, accuracy: [bins] of all queries, NaN in an empty bin.
    """

    ece: float
    ci95: float
    share: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def calibration(
    learner, params, sampler, *, key: jax.Array, num_tasks: int = 600, bins: int = 15
) -> Calibration:
    """Expected calibration error over the queries of many tasks together.

        ECE = sum_b n_b / n |accuracy_b - confidence_b|

    Args: learner, params, sampler, key, num_tasks: as in `evaluate`; bins: of equal width.
    Returns: a `Calibration`; its interval is that of tasks drawn again (bootstrap).
    Source: Guo et al. 2017, arXiv 1706.04599, equation 3.
    """
    checks.check_sizes(bins=bins)
    each = _of_tasks(learner, params, sampler, key, num_tasks, _Bins(bins))
    half = _bootstrap(each, lambda total: _error(total)[0])
    error, (share, sure, right) = _error(each.sum(0))
    return Calibration(error, half, share, sure, right)


class ByClass(NamedTuple):
    """Scores of each class over the tasks it was in, [classes] each, NaN if in none.

    names: of the classes. queries: examples that were asked for. precision, recall, f1:
    in 0..1; ci95: half the 95 % interval of the recall over tasks. confusion: [classes,
    classes] queries of a class (row) that were taken for another (column). Where turns of a
    class are classes of their own, all count for it, and what was taken for another turn
    is wrong, and not in `confusion`.
    """

    names: tuple[str, ...]
    queries: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    ci95: np.ndarray
    confusion: np.ndarray

    def hardest(self, number: int) -> "ByClass":
        """Those with the least recall, in this order."""
        order = np.argsort(self.recall, kind="stable")[:number]  # NaN comes last
        names = tuple(self.names[i] for i in order)
        rest: dict[str, Any] = {
            name: values[order]
            for name, values in self._asdict().items()
            if name not in ("names", "confusion")
        }
        matrix = self.confusion[np.ix_(order, order)]
        return ByClass(names, confusion=matrix, **rest)


def by_class(
    learner,
    params,
    sampler,
    names: Sequence[str],
    *,
    key: jax.Array,
    num_tasks: int = 600,
) -> ByClass:
    """What becomes of each class of a data set, over many tasks of some of them.

    Args:
        learner, params, key, num_tasks: as in `evaluate`.
        sampler: with a `plan(key)` that tells the classes of a task, as `jm.tasks.episodes`.
        names: of the data set's classes, `dataset.classes`.

    Returns: a `ByClass`.
    Raises: ValueError for a sampler without plans.
    """
    plans = callable(getattr(sampler, "plan", None))
    if not plans:
        raise ValueError(
            "sampler: expected one with plan(key), which tells the classes of a task, like "
            f"jm.tasks.episodes, got {checks.said(sampler)}"
        )
    number = len(names)
    classes, matrix = _of_tasks(learner, params, sampler, key, num_tasks, _confused)
    confusion = np.zeros((number, number))
    right, wanted, said = np.zeros((3, number))
    for chosen, one in zip(classes, matrix, strict=True):
        np.add.at(right, chosen, np.diag(one))
        np.add.at(wanted, chosen, one.sum(1))
        np.add.at(said, chosen, one.sum(0))
        np.add.at(confusion, np.ix_(chosen, chosen), one)
    np.fill_diagonal(confusion, right)  # another turn of a class is no right answer
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / wanted
        precision = np.where(wanted > 0, right / np.where(said > 0, said, 1), np.nan)
        f1 = 2 * right / np.where(wanted > 0, wanted + said, np.nan)
    half = _recall_intervals(classes, matrix, number)
    return ByClass(tuple(names), wanted, precision, recall, f1, half, confusion)


def _counts(query: Batch, dtype) -> jax.Array:
    """[query] 1 where an example counts."""
    if query.mask is not None:
        return (query.mask > 0).astype(dtype)
    return jnp.ones(len(jax.tree.leaves(query.y)[0]), dtype)


class _Bins(NamedTuple):
    """Queries of a task by how sure the learner is: a value, so that it compiles once."""

    number: int

    def __call__(self, outputs, query, plan) -> jax.Array:
        """[3, number] of each bin: how many, sum of the confidence, how many are right."""
        del plan
        counts, n = _counts(query, outputs.dtype), self.number
        chance = jax.nn.softmax(outputs)
        sure, best = jnp.max(chance, -1), jnp.argmax(chance, -1)
        place = jnp.clip((sure * n).astype(jnp.int32), 0, n - 1)
        inside = jax.nn.one_hot(place, n, dtype=outputs.dtype) * counts[:, None]
        right = (best == query.y).astype(outputs.dtype)
        return jnp.stack([jnp.ones_like(sure), sure, right]) @ inside


def _confused(outputs, query, plan) -> tuple[jax.Array, jax.Array]:
    """A task's classes [ways], and [ways, ways] queries of one taken for another."""
    ways = outputs.shape[-1]
    counts = _counts(query, outputs.dtype)
    of_class = jax.nn.one_hot(query.y, ways, dtype=outputs.dtype) * counts[:, None]
    found = jax.nn.one_hot(jnp.argmax(outputs, -1), ways, dtype=outputs.dtype)
    return plan.classes[:ways], of_class.T @ found


def _of_tasks(learner, params, sampler, key, num_tasks: int, judge):
    """`judge(outputs, query, plan)` of each task, [num_tasks] on each array."""
    from jaxmeta.training.evaluate import default_at_once

    checks.check_key(key)
    checks.check_learner(learner)
    checks.check_sizes(2, num_tasks=num_tasks)
    params = meshes.on_one_device(params)
    meshes.check_alone("params", params)
    planned = getattr(sampler, "plan", None) is not None
    sampler = as_pytree(sampler)
    how = {"planned": planned, "at_once": default_at_once(sampler, key)}
    own = keys.tasks(key, num_tasks)
    found = _judged(learner, params, sampler, own, judge=judge, **how)
    return jax.tree.map(lambda a: np.asarray(a), found)


@partial(jax.jit, static_argnames=("learner", "judge", "planned", "at_once"))
def _judged(learner, params, sampler, own, *, judge, planned, at_once):
    def one(key):
        task = sampler.sample(jax.random.clone(key))
        adapted = learner.adapt(params, task.support, keys.adapt(key))
        outputs = learner.predict(adapted, task.query.x, task.query.mask)
        plan = sampler.plan(jax.random.clone(key)) if planned else None
        return judge(outputs, task.query, plan)

    return over_tasks(one, at_once)(own)


def _error(total: np.ndarray):
    """ECE of sums [3, bins]; (share, confidence, accuracy) of each bin."""
    number, sure, right = np.asarray(total, np.float64)
    share = number / number.sum()
    with np.errstate(invalid="ignore"):
        sure, right = sure / number, right / number
    gap = np.where(number > 0, np.abs(right - sure), 0)
    return float((share * gap).sum()), (share, sure, right)


def _bootstrap(each: np.ndarray, statistic) -> float:
    """Half a 95 % interval of a statistic of sums over tasks, [tasks, ...]."""
    random = np.random.default_rng(0)
    n = len(each)
    times = random.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    sums = np.tensordot(times, each, axes=1)
    low, high = np.quantile([statistic(total) for total in sums], (0.025, 0.975))
    return float(high - low) / 2


def _recall_intervals(classes, matrix, number: int) -> np.ndarray:
    """Half the 95 % interval of each class's recall over the tasks it is in."""
    from jaxmeta.training.evaluate import interval

    of: list[list[float]] = [[] for _ in range(number)]
    for chosen, one in zip(classes, matrix, strict=True):
        wanted = one.sum(1)
        for i, k in enumerate(chosen.tolist()):
            if wanted[i] > 0:
                of[k].append(one[i, i] / wanted[i])
    each = (np.asarray(values) for values in of)
    return np.array([interval(v, True) if len(v) > 1 else np.nan for v in each])
