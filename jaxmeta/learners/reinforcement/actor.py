"""A network as a policy without memory: what it says, and how it acts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, policies
from jaxmeta.envs.env import Env
from jaxmeta.rollouts import Rollouts, rollout
from jaxmeta.types import Model, PyTree


class Actor(NamedTuple):
    """A policy of one environment, by pure functions.

    init: key -> params. Of `Discrete` actions those of the model; of a `Box` a dict, `mean`
        (the model's) and `log_std` [dims], the same at all observations.
    policy: (params, obs [n, obs_dims]) -> what `jaxmeta.policies` takes.
    log_probs: (params, rollouts) -> log pi(a|s) [episodes, steps].
    collect: (params, task, key) -> Rollouts, episodes of one task, constants.
    """

    init: Callable[[jax.Array], PyTree]
    policy: Callable[[PyTree, jax.Array], Any]
    log_probs: Callable[[PyTree, Rollouts], jax.Array]
    collect: Callable[[PyTree, Any, jax.Array], Rollouts]


def actor(model: Model, env: Env, episodes: int, init_std: float = 1.0) -> Actor:
    """The policy that a network makes.

    Args:
        model: [n, obs_dims] -> [n, actions], logits or means.
        env: where it acts. episodes: how many `collect` plays.
        init_std: of a `Box`'s actions, to begin with; it is learned.

    Raises: ValueError for a model whose outputs are not the environment's actions.
    """
    checks.check_models(model=model)
    checks.check_kind(env, Env, "env")
    checks.check_sizes(episodes=episodes)
    checks.check_positive(init_std=init_std)
    _check_outputs(model, env)
    box = getattr(env.actions, "dims", None)

    def init(key):
        params = model.init(key)
        if box is None:
            return params
        return {
            "mean": params,
            "log_std": jnp.full(box, jnp.log(init_std), jnp.float32),
        }

    def policy(params, obs):
        if box is None:
            return model.apply(params, obs)
        mean = model.apply(params["mean"], obs)
        return mean, jnp.broadcast_to(params["log_std"], mean.shape)

    def log_probs(params, rollouts):
        obs, action = (
            jnp.reshape(a, (-1, *a.shape[2:])) for a in (rollouts.obs, rollouts.action)
        )
        found = policies.log_prob(policy(params, obs), action)
        return jnp.reshape(found, rollouts.reward.shape)

    def act(params, obs, last, key):
        del last  # no memory
        here = jax.tree.map(lambda a: a[0], policy(params, obs[None]))
        action = policies.sample(here, key)
        log_prob = policies.log_prob(here, action)
        return params, action, log_prob, jnp.zeros_like(log_prob)

    def collect(params, task, key):
        # without memory no episode waits for another: one scan over steps for all
        alone = lambda key: rollout(env, task, act, params, key, episodes=1)
        rows = jax.vmap(alone)(jax.random.split(key, episodes))
        return jax.tree.map(lambda a: a[:, 0], rows)

    return Actor(init, policy, log_probs, collect)


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
