"""Goals that have to be found: on the plane, on a half circle, in corners, in the dark."""

from functools import partial

from jaxmeta import envs
from jaxmeta.cli.sources.acting import acting, played
from jaxmeta.envs import Agent, Env, baselines

DEFAULTS = {
    **{"steps": 300, "tasks_per_step": 20, "episodes": 1, "epochs": 5},
    **{"minibatches": 1, "model": "mlp", "width": 64},
}


def _baselines(nothing, knowing, env: Env, options, num_tasks, key):
    """Reports of who learns nothing, and of who knows the goal."""
    name, agent = nothing
    known: Agent = knowing
    both = {name: (agent(env.actions), env), "goal known": (known, envs.told(env))}
    return played(both, options, num_tasks, key)


STILL = "standing still", baselines.still

acting(
    "navigation",
    lambda options: envs.navigation(),
    partial(_baselines, STILL, baselines.glider(0.1)),
    description="a goal on the plane, paid by the distance to it, episodes of 100 steps",
    defaults=DEFAULTS,
    default_learner="maml_rl",
)

acting(
    "semicircle",
    lambda options: envs.semicircle(),
    partial(_baselines, STILL, baselines.glider(0.1)),
    description="a goal on the upper half of the unit circle, episodes of 100 steps",
    defaults=DEFAULTS,
    default_learner="maml_rl",
)

acting(
    "corners",
    lambda options: envs.corners(),
    partial(_baselines, STILL, baselines.glider(0.2)),
    description="one of four corners pays, and only in its quadrant, episodes of 100 steps",
    defaults=DEFAULTS | {"tasks_per_step": 40},
    default_learner="maml_rl",
)

acting(
    "dark-room",
    lambda options: envs.dark_room(),
    partial(_baselines, ("random", baselines.random_action), baselines.walker()),
    description="9 x 9 cells with a goal that is felt only there, episodes of 20 steps",
    defaults=DEFAULTS
    | {"steps": 1000, "tasks_per_step": 256, "episodes": 4, "minibatches": 4},
    default_learner="rl2",
)
