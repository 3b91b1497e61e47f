"""A grid with a hidden goal, VariBAD's first experiment."""

import jax

from jaxmeta import envs, keys
from jaxmeta.cli.sources.acting import acting, exactly, of_episodes, played
from jaxmeta.envs import baselines


def _baselines(env, options, num_tasks, key):
    episodes = options.episodes
    sampling = jax.jit(
        jax.vmap(lambda key: baselines.grid_posterior_sampling(key, episodes=episodes))
    )
    sampled = sampling(keys.tasks(jax.random.clone(key), num_tasks))
    random = {"random": (baselines.random_action(env.actions), env)}
    return played(random, options, num_tasks, key) | {
        "posterior sampling": of_episodes(sampled),
        "optimum (exact)": exactly(
            baselines.grid_optimum(episodes=episodes), num_tasks
        ),
        "goal known": exactly([baselines.known_goal()] * episodes, num_tasks),
    }


acting(
    "grid",
    lambda options: envs.grid(),
    _baselines,
    description="5 x 5 cells with a hidden goal, episodes of 15 steps",
    defaults={
        **{"steps": 1000, "tasks_per_step": 256, "episodes": 4, "epochs": 4},
        **{"minibatches": 4, "model": "mlp", "width": 64},
    },
    default_learner="rl2",
)
