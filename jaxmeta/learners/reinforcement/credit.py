"""Credit for what was tried: the term that makes of MAML's objective E-MAML's.

Stadie et al. 2018. Some Considerations on Learning to Explore via Meta-Reinforcement
Learning. arXiv 1803.01118 (E-MAML). *Per step* the objective is the return J after an
expected update, *per batch* the expected return after an update by a random batch D:

    per step     J(theta + alpha E_D[g(D)])
    per batch    E_D[J(theta + alpha g(D))]

The derivative of the second has a part that the first has not: what is tried depends on
theta, and so does what is learned from it,

    E_D[sum log pi_theta(D)' J(theta + alpha g(D))].

Departures: the authors' code, and ProMP's, scale that term down (means over steps in
place of the sum, normalised rewards), which makes of it a weight to choose.
"""

import jax
import jax.numpy as jnp

from jaxmeta.rollouts import Rollouts


def credit(log_probs: jax.Array, rollouts: Rollouts, after: jax.Array) -> jax.Array:
    """What a batch earns for what was learned from it; its derivative is what counts.

    Args:
        log_probs: log pi(a|s) of the policy that acted, differentiable, [episodes, steps].
        rollouts: the support batch.
        after: [], the return after adapting to it, a constant here; less anything that
            does not depend on this batch (the mean over other tasks), which takes
            variance away and adds no bias.

    Returns: value [], to be ascended along with the return after.
    """
    counted = jnp.where(rollouts.mask > 0, log_probs, 0)
    return jnp.sum(counted) * jax.lax.stop_gradient(after)
