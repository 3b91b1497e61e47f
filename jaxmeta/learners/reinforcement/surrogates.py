"""Surrogates: functions of recorded episodes whose derivative is that of the return.

With l_t = log pi(a_t|s_t) of the policy that is differentiated, sg = stop_gradient, A_t an
advantage or the reward to go, r_t the reward of step t alone:

    score         sum_t l_t A_t                              derivative 1 right
    lvc           sum_t exp(l_t - sg l_t) A_t                1, and nearly the others
    dice          sum_t exp(sum_{k<=t} l_k - sg l_k) r_t     all, in expectation
    loaded_dice   sum_t (exp(w_t - sg w_t) - exp(v_t - sg v_t)) A_t,
                  w_t = decay w_{t-1} + l_t, v_t = w_t - l_t      all, with decay 1
    importance    sum_t exp(l_t - recorded l_t) A_t          as lvc where it was recorded
    ppo_clip      sum_t min(ratio_t A_t, clip(ratio_t) A_t)  1 where it was recorded

An objective of adaptation is differentiated twice, and there they differ: `score` drops
grad l grad l' from the Hessian, `lvc` only products of different steps.

Sources: `score`, Williams 1992, and Finn et al. 2017, arXiv 1703.03400 (MAML); `lvc`,
Rothfuss et al. 2019, arXiv 1810.06784, section 5 (ProMP); `dice`, Foerster et al. 2018,
arXiv 1802.05098; `loaded_dice`, Farquhar et al. 2019, arXiv 1909.10549, algorithm 1;
`ppo_clip`, Schulman et al. 2017, arXiv 1707.06347, equation 7.

Each is (log_probs [episodes, steps], rollouts, advantages [episodes, steps]) -> value [],
to be ascended. The value is the mean over episodes of the sum over steps, divided by the
horizon: one mean a task, whose step size depends neither on the number of tasks nor much
on the horizon. Authors' codes divide by the steps that count instead. That is the same for
episodes that end with the horizon; of others it is a ratio of two random numbers, whose
expectation is not the gradient of anything.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from jaxmeta.rollouts import Rollouts, mean


class Surrogate(Protocol):
    """(log_probs, rollouts, advantages) -> value [], to be ascended."""

    def __call__(
        self, log_probs: jax.Array, rollouts: Rollouts, advantages: jax.Array, /
    ) -> jax.Array: ...


def score(log_probs: jax.Array, rollouts: Rollouts, advantages: jax.Array) -> jax.Array:
    """The score function: what MAML-RL's code, and most since, takes inner steps on."""
    return mean(_counted(log_probs, rollouts) * advantages, rollouts)


def lvc(log_probs: jax.Array, rollouts: Rollouts, advantages: jax.Array) -> jax.Array:
    """Low-variance curvature: a factor a step, with advantages or rewards to go."""
    return mean(_one(_counted(log_probs, rollouts)) * advantages, rollouts)


def dice(
    log_probs: jax.Array,
    rollouts: Rollouts,
    rewards: jax.Array,
    *,
    recorded: bool = False,
) -> jax.Array:
    """DiCE: each reward carries all decisions that led to it.

    Args:
        log_probs, rollouts: see the module.
        rewards: of each step alone, discounted if they are to be, [episodes, steps]; less
            a baseline r_t + V(s_{t+1}) - V(s_t) (`advantages` with trace 0).
        recorded: divide by the policy that acted, in place of the policy itself, for
            several updates on one batch.

    Returns: value [], whose derivatives of all orders are those of the return.
    """
    logs = _counted(log_probs, rollouts)
    behind = _behind(logs, rollouts, recorded)
    return mean(jnp.exp(jnp.cumsum(logs - behind, axis=-1)) * rewards, rollouts)


def loaded_dice(
    log_probs: jax.Array,
    rollouts: Rollouts,
    advantages: jax.Array,
    *,
    decay: float = 1.0,
    recorded: bool = False,
) -> jax.Array:
    """Loaded DiCE: `dice` with advantages, so with any baseline of the state.

    Args:
        log_probs, rollouts, advantages: see the module.
        decay: in [0, 1], what a step keeps of the decisions before it. 1 is unbiased, 0
            is `lvc` less its value, and between the two variance pays for bias.
        recorded: as in `dice`.

    Returns: value [], 0 where the policy is the one divided by.
    """
    logs = _counted(log_probs, rollouts)
    ratios = logs - _behind(logs, rollouts, recorded)

    def step(w, ratio):
        v = decay * w
        return v + ratio, jnp.exp(v + ratio) - jnp.exp(v)

    start = jnp.zeros(ratios.shape[0], ratios.dtype)
    _, loads = jax.lax.scan(step, start, ratios.T)
    return mean(loads.T * advantages, rollouts)


def importance(
    log_probs: jax.Array, rollouts: Rollouts, advantages: jax.Array
) -> jax.Array:
    """Importance weights against the policy that acted: `lvc` for several updates."""
    return mean(_ratio(log_probs, rollouts) * advantages, rollouts)


def ppo_clip(
    log_probs: jax.Array, rollouts: Rollouts, advantages: jax.Array, clip: float = 0.2
) -> jax.Array:
    """`importance` that gains nothing from ratios outside [1 - clip, 1 + clip]."""
    ratio = _ratio(log_probs, rollouts)
    within = jnp.clip(ratio, 1 - clip, 1 + clip)
    return mean(jnp.minimum(ratio * advantages, within * advantages), rollouts)


def divergence(log_probs: jax.Array, rollouts: Rollouts) -> jax.Array:
    """KL(policy that acted || policy), [], from its samples: E[r - 1 - log r], which is
    unbiased and never below 0; its slope is 0 where nothing has moved."""
    log_ratio = _counted(log_probs, rollouts) - _behind(log_probs, rollouts, True)
    return mean(jnp.exp(log_ratio) - 1 - log_ratio, rollouts)


def credit(log_probs: jax.Array, rollouts: Rollouts, after: jax.Array) -> jax.Array:
    """What a batch earns for what was learned from it, see `e_maml`; its derivative is what
    counts.

    Args:
        log_probs: of the policy that acted, differentiable, [episodes, steps].
        rollouts: the support batch.
        after: [], the return after adapting to it, a constant here; less anything that
            does not depend on this batch (the mean over other tasks), which takes
            variance away and adds no bias.

    Returns: value [], to be ascended along with the return after.
    """
    total = jnp.sum(_counted(log_probs, rollouts))
    return total * jax.lax.stop_gradient(after)


def _counted(log_probs: jax.Array, rollouts: Rollouts) -> jax.Array:
    """0 after the end of an episode, whatever a policy would say there."""
    return jnp.where(rollouts.mask > 0, log_probs, 0)


def _behind(logs: jax.Array, rollouts: Rollouts, recorded: bool) -> jax.Array:
    """log of what the policy is divided by, a constant."""
    recorded_logs = _counted(rollouts.log_prob, rollouts)
    return jax.lax.stop_gradient(recorded_logs if recorded else logs)


def _ratio(log_probs: jax.Array, rollouts: Rollouts) -> jax.Array:
    logs = _counted(log_probs, rollouts)
    return jnp.exp(logs - _behind(logs, rollouts, recorded=True))


def _one(logs: jax.Array) -> jax.Array:
    """1, whose derivatives are those of exp(logs) divided by it (DiCE's magic box)."""
    return jnp.exp(logs - jax.lax.stop_gradient(logs))
