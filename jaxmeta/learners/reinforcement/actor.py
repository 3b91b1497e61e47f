"""A network as a policy without memory: what it says, and how it acts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, policies
from jaxmeta.envs.env import Box, Env
from jaxmeta.rollouts import Last, Rollouts
from jaxmeta.types import Model, PyTree


class Actor(NamedTuple):
    """A policy of one environment, by pure functions of its weights w.

    init: key -> w. Of `Discrete` actions those of the model; of a `Box` a dict, `mean`
        (the model's) and `log_std` [dims], the same at all observations.
    predict: (w, rollouts) -> (policy, value [episodes, steps], 0).
    act: (w, (), obs, last, key) -> ((), action, log_prob, 0).
    """

    init: Callable[[jax.Array], PyTree]
    predict: Callable[[PyTree, Rollouts], tuple[Any, jax.Array]]
    act: Callable[[PyTree, Any, jax.Array, Last, jax.Array], tuple]

    def log_probs(self, w: PyTree, rollouts: Rollouts) -> jax.Array:
        """log pi(a|s) [episodes, steps]."""
        return policies.log_prob(self.predict(w, rollouts)[0], rollouts.action)


def actor(model: Model, env: Env, init_std: float = 1.0) -> Actor:
    """The policy that a network makes.

    Args:
        model: [n, obs_dims] -> [n, actions], logits or means.
        env: where it acts.
        init_std: of a `Box`'s actions, to begin with; it is learned.

    Raises: ValueError for a model whose outputs are not the environment's actions.
    """
    checks.check_models(model=model)
    checks.check_kind(env, Env, "env")
    checks.check_positive(init_std=init_std)
    _check_outputs(model, env)
    dims = env.actions.dims if isinstance(env.actions, Box) else None

    def init(key):
        params = model.init(key)
        if dims is None:
            return params
        log_std = jnp.full(dims, jnp.log(init_std), jnp.float32)
        return {"mean": params, "log_std": log_std}

    def policy(w, obs):
        if dims is None:
            return model.apply(w, obs)
        mean = model.apply(w["mean"], obs)
        return mean, jnp.broadcast_to(w["log_std"], mean.shape)

    def predict(w, rollouts):
        shape = rollouts.reward.shape
        flat = policy(w, jnp.reshape(rollouts.obs, (-1, *rollouts.obs.shape[2:])))
        rows = lambda a: jnp.reshape(a, (*shape, *a.shape[1:]))
        return jax.tree.map(rows, flat), jnp.zeros(shape)

    def act(w, memory, obs, last, key):
        del last  # no memory
        here = jax.tree.map(lambda a: a[0], policy(w, obs[None]))
        action = policies.sample(here, key)
        log_prob = policies.log_prob(here, action)
        return memory, action, log_prob, jnp.zeros_like(log_prob)

    return Actor(init, predict, act)


def _check_outputs(model: Model, env: Env) -> None:
    """Raise ValueError unless the model gives a number for each action."""
    wanted = env.actions[0]  # n, or dims
    obs = jax.ShapeDtypeStruct((1, env.obs_dims), jnp.float32)
    apply = lambda key, obs: model.apply(model.init(key), obs)
    found = jax.eval_shape(apply, jax.random.key(0), obs).shape
    if found != (1, wanted):
        raise ValueError(
            f"model: expected outputs [n, {wanted}] for {env.actions} from inputs "
            f"[n, {env.obs_dims}], got {('n', *found[1:])}"
        )
