"""Seeds pooled: one mean, and an interval that holds what seeds and tasks add to it."""

from collections.abc import Sequence

import numpy as np

from jaxmeta import checks
from jaxmeta.training.evaluate import Report, students_t


def pooled(reports: Sequence[Report], *, same_tasks: bool = False) -> Report:
    """Reports of several seeds as one.

    With other tasks for each seed, the means of seeds are independent, and their spread
    (Student's t with one degree of freedom less than seeds) has the tasks' part in it.
    With the same tasks for all, they share what these tasks are by chance, which the
    spread between seeds does not show. Then, of a mean over k seeds and n tasks, the
    variance is that of two crossed random effects:

        V = v_seeds / k + v_tasks / n - v_rest / (k n)

    v_seeds, v_tasks: variances of the means over tasks and over seeds; v_rest: what is
    left when both are taken out. Degrees of freedom: the fewer of k - 1 and n - 1.

    Args:
        reports: of at least two seeds, with as many tasks each.
        same_tasks: whether task i is the same in each.

    Returns: a `Report`; its `per_task` are means over seeds with the same tasks, and
        otherwise all tasks of all seeds.
    Raises: ValueError for fewer than two reports, or reports that differ in their
        metrics or, with the same tasks, in their number, or have one.
    Source: Searle, Casella, McCulloch. Variance Components. 1992, chapter 4.

    >>> import numpy as np, jaxmeta as jm
    >>> seeds = [jm.training.summarize({"loss": a + np.arange(4.0)}) for a in (0, 1, 2)]
    >>> report = jm.pooled(seeds)
    >>> report.mean["loss"], round(report.ci95["loss"], 4)  # of 1.5, 2.5, 3.5
    (2.5, 2.4841)
    """
    if not isinstance(reports, (list, tuple)) or isinstance(reports, Report):
        raise ValueError(f"reports: expected several, got {checks.said(reports)}")
    checks.check_sizes(2, reports=len(reports))
    for report in reports:
        checks.check_kind(report, Report, "reports")
    if same_tasks:
        checks.check_sizes(2, tasks=reports[0].num_tasks)
    names = list(reports[0].mean)
    for report in reports[1:]:
        if list(report.mean) != names:
            raise ValueError(
                f"reports: expected the same metrics in each, got {names} and "
                f"{list(report.mean)}"
            )
        if same_tasks and report.num_tasks != reports[0].num_tasks:
            raise ValueError(
                "reports: with the same tasks, expected as many in each, got "
                f"{reports[0].num_tasks} and {report.num_tasks}"
            )
    each = {name: [report.per_task[name] for report in reports] for name in names}
    join = (lambda a: np.mean(a, axis=0)) if same_tasks else np.concatenate
    mean = {n: float(np.mean([a.mean() for a in v])) for n, v in each.items()}
    half = {n: _half(v, same_tasks) for n, v in each.items()}
    per_task = {n: join(v) for n, v in each.items()}
    number = len(next(iter(per_task.values())))
    return Report(mean, half, per_task, number, sum(r.diverged for r in reports))


def _half(each: list[np.ndarray], same_tasks: bool) -> float:
    """Half a 95 % interval of the mean; each: [tasks] of each seed."""
    k = len(each)
    of_seeds = np.array([values.mean() for values in each])
    variance, freedom = of_seeds.var(ddof=1) / k, k - 1
    if same_tasks:
        values = np.array(each)  # [seeds, tasks]
        n = values.shape[1]
        of_tasks = values.mean(axis=0)
        rest = values - of_seeds[:, None] - of_tasks[None, :] + values.mean()
        left = (rest**2).sum() / max(1, (k - 1) * (n - 1))
        variance = variance + of_tasks.var(ddof=1) / n - left / (k * n)
        variance, freedom = max(variance, of_seeds.var(ddof=1) / k), min(k, n) - 1
    return students_t(freedom) * float(variance) ** 0.5
