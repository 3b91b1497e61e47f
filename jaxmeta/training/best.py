"""The best state by validation, and the end of a training that gets no better."""

from collections.abc import Callable
from typing import Any

from jaxmeta import checks, meshes
from jaxmeta.training.evaluate import Report

LOWER = ("loss", "mse", "mae", "objective")  # less is better; of all others, more


class Best:
    """Keeps the state with the best validation; `fit` tells it of each.

    Args:
        metric: of the validation's report; of several names, the first that it has.
        patience: validations in a row without a better one after which training ends;
            None = it goes on to its last step.
        keep: called with each state that is the best so far; None = it is held in `state`.
        lower: whether less is better; None = of a loss or an error.

    Attributes: `state`, `value` (of the metric) and `step` of the best so far, None before
        the first validation, and `waited`, validations since.

    >>> import jax, optax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(hidden=(8,)), loss=jm.losses.mse)
    >>> best, sines = jm.Best("loss", patience=2), jm.tasks.sinusoid()
    >>> last = jm.fit(learner, sines, optax.sgd(0.0), steps=60, key=jax.random.key(0),
    ...               validation=sines, validate_every=10, chunk=10, best=best)
    >>> best.step, int(last.step)  # nothing was learned, so it waited twice
    (10, 30)
    """

    def __init__(
        self,
        metric: str | tuple[str, ...] = "accuracy",
        patience: int | None = None,
        *,
        keep: Callable[[Any], None] | None = None,
        lower: bool | None = None,
    ):
        metrics = (metric,) if isinstance(metric, str) else tuple(metric)
        for name in metrics:
            checks.check_names(metric=name)
        if patience is not None:
            checks.check_sizes(patience=patience)
        if keep is not None:
            checks.check_functions(keep=keep)
        self._metrics, self._patience, self._keep = metrics, patience, keep
        self._lower = lower
        self.state: Any = None
        self.value: float | None = None
        self.step: int | None = None
        self.waited = 0

    def look(self, state: Any, report: Report) -> bool:
        """Take the state if it is better; whether training has waited long enough.

        Raises: ValueError if the report has no such metric.
        """
        metric = next((name for name in self._metrics if name in report.mean), None)
        if metric is None:
            raise ValueError(
                f"metric: a validation reports {', '.join(report.mean)}; expected one of "
                f"these, got {', '.join(self._metrics)}"
            )
        if self.told(metric, report.mean[metric], int(state.step)):
            if self._keep is None:
                self.state = meshes.copied(state)
            else:
                self._keep(state)
        return self.over

    @property
    def over(self) -> bool:
        """Whether training has waited long enough."""
        return self._patience is not None and self.waited >= self._patience

    def told(self, metric: str, value: float, step: int) -> bool:
        """Note a value of the metric, NaN included; whether it is the best so far."""
        lower = metric in LOWER if self._lower is None else self._lower
        sign = -1 if lower else 1
        better = value == value and (
            self.value is None or sign * value > sign * self.value
        )
        self.waited = 0 if better else self.waited + 1
        if better:
            self.value, self.step = value, step
        return better
