"""What an agent is, of learners and baselines alike."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Agent(NamedTuple):
    """A meta-learner that acts: pure functions of one task.

    A trial is `updates` + 1 batches of episodes of one task: after each but the last the
    agent adapts. What it remembers, it remembers from episode to episode of a batch.

    init: key -> params, all that is meta-learned and nothing else.
    adapt: (params, support=None, key=None) -> adapted, learns from recorded episodes of a
        task: `Rollouts`, or a tuple of them, a batch an update; None = from none yet.
    begin: adapted -> memory, before the first step of a batch; None = it has no memory, so
        no episode waits for another.
    act: (adapted, memory, obs, last, key) -> (memory, action, log_prob, value).
    predict: (adapted, rollouts) -> (policy, value [episodes, steps]), what it says at each
        step of a recorded batch: a scan of `act`. None = it is a baseline that nothing
        trains.
    loss: (params, batches, others=0.0) -> (value [], metrics), what training descends in
        one recorded trial, a tuple of `Rollouts`; others: [], what other tasks paid in
        their last batch (mean reward of a step), for what counts success against it.
    updates: of a trial.
    episodes: of a trial, of all its batches, that the memory has room for; None = any
        number.
    """

    init: Callable[..., Any]
    adapt: Callable[..., Any]
    begin: Callable[..., Any] | None
    act: Callable[..., tuple[Any, jax.Array, Any, jax.Array]]
    predict: Callable[..., tuple[Any, jax.Array]] | None = None
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]] | None = None
    updates: int = 0
    episodes: int | None = None
