"""What problems that one acts in share: how agents are trained, tested and drawn."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxmeta.cli.networks import FlagNetworks
from jaxmeta.cli.options import Options
from jaxmeta.cli.sources.source import Headline, Reports, Source, source
from jaxmeta.envs import Agent, Env
from jaxmeta.learners.registry import Facts, facts_of_env
from jaxmeta.learners.reinforcement import policy_gradient
from jaxmeta.training import plots
from jaxmeta.training.evaluate import Report, summarize
from jaxmeta.training.returns import evaluate_returns
from jaxmeta.types import Outer


class Acting(Source):
    """A problem whose "sampler" is an environment."""

    @property
    def uses(self) -> tuple[str, ...]:
        """The options, of those that not every problem uses, that this one does."""
        return ("episodes", "epochs", "minibatches", *self.options)

    def facts(self, sampler: Env) -> Facts:
        """Of what is seen and done."""
        return facts_of_env(sampler)

    def networks(self, facts: Facts, sampler: Env, options: Options) -> FlagNetworks:
        """From observations to actions."""
        return FlagNetworks.of(options, facts, (sampler.obs_dims,))

    def outer(
        self, learner: Agent, sampler: Env, options: Options, mesh: Any = None
    ) -> Outer:
        """Policy gradients over whole trials. Raises: ValueError for a mesh."""
        if mesh is not None:
            raise ValueError(
                f"devices: {self.name} is acted in, which takes one device; leave "
                "--devices out"
            )
        assert options.tasks_per_step and options.episodes
        assert options.epochs and options.minibatches
        return policy_gradient(
            learner,
            sampler,
            optax.adam(options.learning_rate, eps=1e-5),
            tasks_per_step=options.tasks_per_step,
            episodes=options.episodes,
            epochs=options.epochs,
            minibatches=options.minibatches,
        )

    def judge(
        self, learner, params, sampler, options: Options, num_tasks: int, key, mesh=None
    ) -> Report:
        """By what it earns in new tasks."""
        del mesh  # there is none, see `outer`
        assert options.episodes
        how = {"episodes": options.episodes, "num_tasks": num_tasks, "key": key}
        return evaluate_returns(learner, params, sampler, **how)

    def picture(
        self,
        learner,
        params,
        sampler,
        key,
        reports: Reports,
        path: Path,
        unadapted=None,
    ) -> None:
        """What was earned in each episode, or after each update, beside the baselines."""
        del learner, params, sampler, key, unadapted
        plots.returns(reports, path)


def acting(name: str, make, baselines, **said: Any) -> Source:
    """List a problem that one acts in.

    Args:
        name; make: options -> Env. baselines: as of a `Headline`; sampler is the Env.
        said: the rest of a `Source`.
    """

    def samplers(options: Options) -> dict[str, Any]:
        env = make(options)
        # what trains draws its tasks itself, and tells what it earns while it trains
        return {"episodes": env, "trials": None, "validation": None, "test": env}

    # what trains tells is the return of an episode
    told = lambda metric, title: Headline(metric, title, baselines, curve="return")
    return source(
        Acting,
        name=name,
        kind="reinforcement",
        samplers=samplers,
        headline=(
            told("total", "return of a trial"),
            told("return", "return of an episode"),
        ),
        **said,
    )


def played(agents: dict[str, tuple[Agent, Env]], options: Options, num_tasks: int, key):
    """Reports of agents without parameters, each in its environment."""
    assert options.episodes
    how = {"episodes": options.episodes, "num_tasks": num_tasks}
    return {
        name: evaluate_returns(agent, (), env, key=jax.random.clone(key), **how)
        for name, (agent, env) in agents.items()
    }


def of_episodes(each) -> Report:
    """The report of returns [tasks, episodes]."""
    each = np.asarray(each, np.float64)
    told = {"return": each.mean(1), "total": each.sum(1)}
    numbered = {f"episode_{i + 1}": column for i, column in enumerate(each.T)}
    return summarize(told | numbered)


def exactly(returns, num_tasks: int) -> Report:
    """The report of expectations that are known, one for each episode."""
    return of_episodes(np.tile(np.asarray(returns, np.float64), (num_tasks, 1)))
