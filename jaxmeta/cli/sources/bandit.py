"""Bernoulli bandits, the first experiment of the RL^2 paper."""

from jaxmeta import envs
from jaxmeta.cli.options import Options, given_or
from jaxmeta.cli.sources.acting import acting, exactly, played
from jaxmeta.envs import baselines

FEW = 20  # pulls of more than two arms whose optimum takes seconds


def _make(options: Options) -> envs.Env:
    return envs.bandit(given_or(options.arms, 5), given_or(options.pulls, 10))


def _baselines(env, options, num_tasks, key):
    arms, pulls = env.actions.n, env.horizon
    agents = {"random": baselines.random_arm(arms)}
    best = [pulls * arms / (arms + 1)] * options.episodes
    known = {"best arm known": exactly(best, num_tasks)}
    if options.episodes == 1:  # of several, what was learned before counts as well
        agents |= {
            "greedy": baselines.greedy(arms),
            "UCB1, constant 0.2": baselines.ucb1(arms, 0.2),
            "Thompson": baselines.thompson(arms),
            "Gittins": baselines.gittins(arms, pulls),
        }
        if arms == 2 or pulls <= FEW:
            optimum = baselines.bandit_optimum(arms, pulls)
            known = {"optimum (exact)": exactly([optimum], num_tasks)}
    here = {name: (agent, env) for name, agent in agents.items()}
    return played(here, options, num_tasks, key) | known


acting(
    "bandit",
    _make,
    _baselines,
    description="Bernoulli bandits, chances uniform in [0, 1]; --arms, --pulls",
    defaults={
        **{"arms": 5, "pulls": 10, "steps": 800, "tasks_per_step": 1024},
        **{"episodes": 1, "epochs": 4, "minibatches": 4, "model": "mlp", "width": 64},
    },
    default_learner="rl2",
    options=("arms", "pulls"),
)
