"""The contract that every agent keeps: `jm.testing.check_agent`.

Each function in `AGENT_PROMISES` holds an `AgentTrial` (an agent with a small environment)
to one promise, and raises AssertionError if it is broken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
import optax

from jaxmeta import policies
from jaxmeta.envs import Agent, Env
from jaxmeta.learners.reinforcement import policy_gradient
from jaxmeta.rollouts import Rollouts, practise
from jaxmeta.training.fit import fit
from jaxmeta.training.returns import evaluate_returns
from jaxmeta.types import Outer

TASKS = 3  # that are compared with a loop


@dataclass(frozen=True)
class AgentTrial:
    """An agent with an environment that it learns in some dozen meta-steps.

    agent, env; episodes: of a batch. outer: how it is trained. steps: meta-steps after which
    it earns more.
    """

    agent: Agent
    env: Env
    episodes: int = 2
    outer: Outer | None = None
    steps: int = 60

    @cached_property
    def trained_by(self) -> Outer:
        """Policy gradients, if nothing else is said."""
        sizes = {"tasks_per_step": 32, "episodes": self.episodes, "epochs": 2}
        return self.outer or policy_gradient(
            self.agent, self.env, optax.adam(2e-2), minibatches=1, **sizes
        )

    @cached_property
    def params(self) -> Any:
        """Initial meta-parameters."""
        return jax.jit(self.agent.init)(jax.random.key(0))

    @cached_property
    def played(self) -> tuple[Rollouts, ...]:
        """Recorded trials of some tasks, [tasks, episodes, steps]."""

        def one(params, key):
            key_task, key_act = jax.random.split(key)
            task = self.env.sample(key_task)
            return practise(self.agent, params, self.env, task, key_act, self.episodes)

        keys = jax.random.split(jax.random.key(1), TASKS)
        return jax.device_get(jax.jit(jax.vmap(one, (None, 0)))(self.params, keys))

    @cached_property
    def batches(self) -> tuple[Rollouts, ...]:
        """The same, the last steps of some episodes after their end."""
        return tuple(map(_shortened, self.played))

    @cached_property
    def judged(self) -> Callable:
        """(params, batches of one task) -> (loss, metrics), its gradient: compiled once."""
        assert self.agent.loss is not None
        return jax.jit(jax.value_and_grad(self.agent.loss, has_aux=True))

    def trial(self, i: int) -> tuple[Rollouts, ...]:
        """That of one task."""
        return jax.tree.map(lambda a: a[i], self.batches)

    def train(self, steps: int, seed: int = 0, state: Any = None) -> Any:
        """The state after some meta-steps."""
        key = jax.random.key(seed)
        return fit(
            self.trained_by, None, steps=steps, key=key, state=state, chunk=self.steps
        )


def check_agent(
    agent: Agent,
    env: Env,
    *,
    episodes: int = 2,
    outer: Outer | None = None,
    steps: int = 60,
) -> None:
    """Hold an agent of your own to all that the agents of this library keep.

    Args:
        agent: with `predict` and `loss`.
        env: a small one that it learns in some dozen meta-steps.
        episodes: of a batch.
        outer: how it is trained; None = `jm.policy_gradient` with Adam.
        steps: meta-steps after which it earns more.

    Raises: AssertionError that begins with the promise that is broken.

    >>> import jaxmeta as jm
    >>> env = jm.envs.bandit(arms=2, pulls=4, chances=((0, 1), (1, 0)))
    >>> jm.testing.check_agent(jm.rl2(env, hidden=8), env, episodes=1)
    """
    trial = AgentTrial(agent, env, episodes, outer, steps)
    for name, promise in AGENT_PROMISES.items():
        try:
            promise(trial)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def predict_is_a_scan_of_act(trial: AgentTrial) -> None:
    """What it says of a recorded batch is what it said when it acted."""
    agent, predict = trial.agent, trial.agent.predict
    *support, last = jax.tree.map(lambda a: a[0], trial.played)
    assert predict is not None

    def said(params, support, last):
        policy, value = predict(agent.adapt(params, support or None), last)
        return policies.log_prob(policy, last.action), value

    counted = lambda a: np.where(last.mask > 0, a, 0)
    found = jax.jit(said)(trial.params, tuple(support), last)
    for a, b in zip(found, (last.log_prob, last.value), strict=True):
        np.testing.assert_allclose(counted(a), counted(b), atol=1e-5)


def jit_equals_eager(trial: AgentTrial) -> None:
    """To single precision."""
    given = trial.params, trial.trial(0)
    (value, told), _ = trial.judged(*given)
    assert trial.agent.loss is not None
    eager, told_eager = trial.agent.loss(*given)
    np.testing.assert_allclose(value, eager, rtol=1e-4, atol=1e-6)
    assert told.keys() == told_eager.keys()


def tasks_at_once_change_no_number(trial: AgentTrial) -> None:
    """A vmap over tasks gives the numbers of a loop."""
    together = jax.jit(jax.vmap(trial.judged, (None, 0)))(trial.params, trial.batches)
    each = [trial.judged(trial.params, trial.trial(i)) for i in range(TASKS)]
    alone = jax.tree.map(lambda *a: np.stack(a), *each)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, together, alone)


def masked_steps_change_nothing(trial: AgentTrial) -> None:
    """Whatever stands after the end of an episode: the same bits, and no NaN."""
    given = trial.trial(0)
    assert all((batch.mask == 0).any() for batch in given)
    wanted = trial.judged(trial.params, given)
    for fill in (1e6, np.nan):
        spoilt = tuple(_filled(batch, fill) for batch in given)
        found = trial.judged(trial.params, spoilt)
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(wanted))


def state_is_stable(trial: AgentTrial) -> None:
    """A meta-step keeps the state's tree, shapes and types: the second compiles nothing."""
    key = jax.random.key(0)
    before = jax.eval_shape(trial.trained_by.init, key)
    after = jax.eval_shape(
        lambda s, k: trial.trained_by.step(s, None, k)[0], before, key
    )
    assert after == before, (before, after)


def same_key_same_result(trial: AgentTrial) -> None:
    """And another key another one; a run that was interrupted is the same run."""
    first, other = trial.train(4), trial.train(4, seed=1)
    resumed = trial.train(4, state=trial.train(2))
    same = lambda a, b: all(
        np.array_equal(*pair)
        for pair in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )
    assert same(first, resumed) and not same(first.params, other.params)


def return_rises(trial: AgentTrial) -> None:
    """By more than four standard errors, in unseen tasks."""
    untrained = trial.trained_by.init(jax.random.key(0)).params
    ends = untrained, trial.train(trial.steps).params
    how = {"episodes": trial.episodes, "num_tasks": 400, "key": jax.random.key(2)}
    before, after = (
        evaluate_returns(trial.agent, params, trial.env, **how).per_task["return"]
        for params in ends
    )
    gain = after - before
    assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5, (
        before.mean(),
        after.mean(),
    )


AGENT_PROMISES = {
    promise.__name__: promise
    for promise in (
        predict_is_a_scan_of_act,
        jit_equals_eager,
        tasks_at_once_change_no_number,
        masked_steps_change_nothing,
        state_is_stable,
        same_key_same_result,
        return_rises,
    )
}


def _shortened(rollouts: Rollouts) -> Rollouts:
    """The last step of every other episode after its end."""
    mask = rollouts.mask.copy()
    mask[:, ::2, -1] = 0
    return rollouts._replace(mask=mask)


def _filled(rollouts: Rollouts, fill: float) -> Rollouts:
    """Nonsense after the end of episodes."""

    def spoilt(a):
        value = fill if np.issubdtype(a.dtype, np.floating) else 0
        counts = rollouts.mask.reshape(*rollouts.mask.shape, *[1] * (a.ndim - 2)) > 0
        return np.where(counts, a, np.asarray(value, a.dtype))

    return jax.tree.map(spoilt, rollouts._replace(mask=None))._replace(
        mask=rollouts.mask
    )
