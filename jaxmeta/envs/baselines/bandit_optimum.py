"""What no agent can beat on Bernoulli bandits: dynamic programming over counts.

The chances of the arms are unknown but their prior is, so how often each arm has paid and
failed is the whole state of a decision problem that can be solved backwards. Bellman 1956,
A Problem in the Sequential Design of Experiments.
"""

from bisect import insort
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from jaxmeta import checks

Chances = Callable[..., tuple[np.ndarray, np.ndarray]]


def bandit_optimum(arms: int, pulls: int, *, chances: Any = None) -> float:
    """Expected total reward of the Bayes-optimal agent.

    Two arms cost pulls^4 / 4 numbers (100 pulls: a second). With more the states are the
    arms' counts in any order, about (pulls + 2 arms)! / (pulls! (2 arms)! arms!) of them:
    20 pulls of 5 arms take some seconds, 100 pulls are out of reach.

    Args:
        arms: of which no more than `pulls` can matter. pulls: of one task.
        chances: [tasks, 2], the chances of two arms in each of some equally likely tasks;
            None = the arms' chances are independent and uniform on [0, 1].

    Returns: reward summed over the pulls.
    Raises: ValueError for sizes below 1, chances outside [0, 1] or not of two arms.

    One pull is worth 1/2. Of two, the second is worth 2/3 after a success, and after a
    failure 1/2 on the other arm:

    >>> round(bandit_optimum(arms=2, pulls=2), 4)  # 1/2 + (2/3 + 1/2) / 2
    1.0833
    """
    checks.check_sizes(arms=arms, pulls=pulls)
    if chances is not None:
        return _two_arms(pulls, _among(_checked(chances, arms)))
    arms = min(arms, pulls)
    if arms == 1:
        return pulls / 2
    return _two_arms(pulls, _uniform) if arms == 2 else _many_arms(arms, pulls)


def _two_arms(pulls: int, chances: Chances) -> float:
    """Layer by layer; chances: (s1, f1, s2, f2) -> of the next success of each arm."""
    value = np.zeros((pulls + 1,) * 3)  # [s1, f1, s2]; f2 is what remains of the pulls
    for t in reversed(range(pulls)):
        s1, f1, s2 = np.ogrid[: t + 1, : t + 1, : t + 1]
        f2 = np.maximum(t - s1 - f1 - s2, 0)  # more pulls than t: no other state asks
        p1, p2 = chances(s1, f1, s2, f2)
        neither = value[:-1, :-1, :-1]  # the same three counts: arm 2 has failed
        first = p1 * (1 + value[1:, :-1, :-1]) + (1 - p1) * value[:-1, 1:, :-1]
        second = p2 * (1 + value[:-1, :-1, 1:]) + (1 - p2) * neither
        value = np.maximum(first, second)
    return float(value[0, 0, 0])


def _uniform(s1, f1, s2, f2):
    """Laplace's rule of succession."""
    return (s1 + 1) / (s1 + f1 + 2), (s2 + 1) / (s2 + f2 + 2)


def _among(tasks: np.ndarray) -> Chances:
    """Means of the posterior over tasks [tasks, 2]."""
    tiny = np.finfo(float).tiny  # log 0, small enough to rule a task out
    win, lose = np.log(np.maximum(tasks, tiny)), np.log(np.maximum(1 - tasks, tiny))

    def chances(s1, f1, s2, f2):
        logs = [
            s1 * won[0] + f1 * lost[0] + s2 * won[1] + f2 * lost[1]
            for won, lost in zip(win, lose, strict=True)
        ]
        weights = np.exp(np.stack(logs) - np.max(logs, axis=0))
        weights /= weights.sum(axis=0)
        first, second = np.tensordot(tasks, weights, axes=(0, 0))
        return first, second

    return chances


def _many_arms(arms: int, pulls: int) -> float:
    """A state is the sorted counts (successes, failures) of the arms pulled so far: which
    is which does not matter, and one that nobody has pulled is like any other."""

    @cache
    def value(seen, left):
        new = [(0, 0)] if len(seen) < arms else []
        return max(after_pull(seen, arm, left) for arm in {*seen, *new})

    def after_pull(seen, arm, left):
        s, f = arm
        p = (s + 1) / (s + f + 2)
        if left == 1:
            return p
        others = list(seen)
        if s + f:
            others.remove(arm)
        won, lost = others.copy(), others
        insort(won, (s + 1, f))
        insort(lost, (s, f + 1))
        won, lost = value(tuple(won), left - 1), value(tuple(lost), left - 1)
        return p * (1 + won) + (1 - p) * lost

    return value((), pulls)


def _checked(chances: Any, arms: int) -> np.ndarray:
    array = checks.to_array("chances", chances).astype(float)
    if arms != 2 or array.ndim != 2 or array.shape[1] != 2 or not len(array):
        raise ValueError(
            f"chances: expected an array [tasks, 2] and arms=2, got shape {array.shape} "
            f"and arms={arms}; only two arms are solved for listed tasks"
        )
    if not np.all((array >= 0) & (array <= 1)):
        raise ValueError(f"chances: expected numbers in [0, 1], got {array.tolist()}")
    return array
