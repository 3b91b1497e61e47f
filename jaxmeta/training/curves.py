"""A test along one number: after each inner step, by shots, by ways."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta import checks
from jaxmeta.training.evaluate import Report, evaluate
from jaxmeta.types import MetaLearner, Sampler

# a value -> what is tested there, and on which tasks
Make = Callable[[Any], tuple[MetaLearner, Sampler]]


class Curve(NamedTuple):
    """Tests of the same meta-parameters, one a value.

    values: [n]. reports: one each, `jm.Report`s.
    """

    values: tuple[Any, ...]
    reports: tuple[Report, ...]

    def mean(self, metric: str) -> np.ndarray:
        """[n] means over tasks."""
        return np.array([report.mean[metric] for report in self.reports])

    def ci95(self, metric: str) -> np.ndarray:
        """[n] half 95 % intervals over tasks."""
        return np.array([report.ci95[metric] for report in self.reports])


def curve(
    make: Make,
    params: Any,
    values: Sequence[Any],
    *,
    key: jax.Array,
    num_tasks: int = 600,
    tasks_at_once: int | None = None,
    metrics: Callable[..., Any] | None = None,
    mesh: Any = None,
) -> Curve:
    """Test meta-parameters along one number of the learner or of its tasks.

    An adaptation curve changes the inner steps, and then all tests are on the same tasks;
    curves by shots and ways change the sampler:

        lambda n: (jm.maml(model, inner_steps=n), test)
        lambda n: (learner, jm.tasks.episodes(data, ways=5, shots=n))
        lambda n: (jm.protonet(model, ways=n), jm.tasks.episodes(data, ways=n, shots=1))

    Args:
        make: value -> (learner, sampler). params: of all these learners.
        values: at least one. The other arguments are those of `evaluate`.

    Returns: a `Curve`.
    Raises: ValueError for no value, a `make` that gives something else, or a learner whose
        parameters have other shapes.

    >>> import jax, jaxmeta as jm
    >>> test = jm.tasks.sinusoid()
    >>> learner = lambda n: jm.maml(
    ...     jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse, inner_steps=n)
    >>> params = learner(1).init(jax.random.key(0))
    >>> steps = curve(lambda n: (learner(n), test), params, (0, 1, 5), num_tasks=20,
    ...               key=jax.random.key(1))
    >>> steps.values, steps.mean("loss").shape
    ((0, 1, 5), (3,))
    """
    checks.check_functions(make=make)
    values = tuple(values)
    if not values:
        raise ValueError("values: expected at least one, got none")
    reports = []
    for value in values:
        learner, sampler = _pair(make(value))
        _check_shapes(learner, params, value)
        report = evaluate(
            learner,
            params,
            sampler,
            num_tasks=num_tasks,
            key=jax.random.clone(key),
            tasks_at_once=tasks_at_once,
            metrics=metrics,
            mesh=mesh,
        )
        reports.append(report)
    return Curve(values, tuple(reports))


def _pair(made: Any) -> tuple[MetaLearner, Sampler]:
    if not (isinstance(made, tuple) and len(made) == 2):  # a learner is a longer one
        raise ValueError(
            f"make: expected to get (learner, sampler), got {checks.said(made)}"
        )
    return made


def _check_shapes(learner: MetaLearner, params: Any, value: Any) -> None:
    """Raise ValueError unless the parameters are this learner's, too."""
    checks.check_learner(learner)
    own = jax.eval_shape(learner.init, jax.random.key(0))
    shapes = lambda tree: [np.shape(a) for a in jax.tree.leaves(tree)]
    if shapes(own) != shapes(params):
        raise ValueError(
            f"values: at {value} the learner has parameters of other shapes than `params`;"
            " expected a value that they do not depend on (of ways: a metric or solver "
            "learner)"
        )
