"""Random Markov decision processes of few states, an experiment of the RL^2 paper."""

import jax
import jax.numpy as jnp

from jaxmeta import envs, keys
from jaxmeta.cli.sources.acting import acting, of_episodes, played
from jaxmeta.envs import baselines


def _baselines(env, options, num_tasks, key):
    episodes, horizon = options.episodes, env.horizon

    def one(key):
        key_task, key_act = jax.random.split(key)
        mdp = env.sample(key_task)
        known = baselines.value_iteration(mdp.transitions, mdp.rewards, horizon)[0][
            0, 0
        ]
        sampled = baselines.psrl(
            mdp.transitions, mdp.rewards, key_act, episodes=episodes, horizon=horizon
        )
        return sampled, jnp.full(episodes, known)

    sampled, known = jax.jit(jax.vmap(one))(
        keys.tasks(jax.random.clone(key), num_tasks)
    )
    random = {"random": (baselines.random_action(env.actions), env)}
    return played(random, options, num_tasks, key) | {
        "posterior sampling": of_episodes(sampled),
        "task known": of_episodes(known),
    }


acting(
    "tabular-mdp",
    lambda options: envs.tabular(),
    _baselines,
    description="random MDPs of 10 states and 5 actions, episodes of 10 steps",
    defaults={
        **{"steps": 1000, "tasks_per_step": 256, "episodes": 10, "epochs": 4},
        **{"minibatches": 4, "model": "mlp", "width": 64},
    },
    default_learner="rl2",
)
