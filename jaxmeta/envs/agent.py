"""What an agent is, of learners and baselines alike."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Agent(NamedTuple):
    """A meta-learner that acts: pure functions of one task.

    init: key -> params, all that is meta-learned and nothing else.
    adapt: (params, support=None, key=None) -> adapted, learns from recorded episodes of a
        task, `Rollouts`; None = from none yet.
    begin: adapted -> memory, before the first step of a trial.
    act: (adapted, memory, obs, last, key) -> (memory, action, log_prob, value).
    predict: (adapted, rollouts) -> (policy, value [episodes, steps]), what it says at each
        step of recorded episodes of one trial: `predict` is a scan of `act`. None = it is
        a baseline that nothing trains.
    """

    init: Callable[..., Any]
    adapt: Callable[..., Any]
    begin: Callable[..., Any]
    act: Callable[..., tuple[Any, jax.Array, Any, jax.Array]]
    predict: Callable[..., tuple[Any, jax.Array]] | None = None
