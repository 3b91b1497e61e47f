"""Functions drawn from Gaussian processes; the exact posterior is the ceiling."""

import jax

from jaxmeta import keys, tasks
from jaxmeta.cli.sources.source import MSE, Headline, draw_curve, everywhere, source
from jaxmeta.training.evaluate import summarize


def _exact(sampler, options, num_tasks, key):
    del options
    log_likelihood = jax.jit(jax.vmap(sampler.exact_log_likelihood))
    values = log_likelihood(keys.tasks(key, num_tasks))
    return {"exact process (ceiling)": summarize({"log_likelihood": values})}


source(
    name="gaussian-process",
    description="functions drawn from Gaussian processes, squared-exponential kernel; "
    "3 to 46 support and query points, drawn anew for each task",
    kind="regression",
    samplers=lambda options: everywhere(tasks.gaussian_process()),
    headline=(Headline("log_likelihood", "log likelihood", _exact), *MSE),
    draw=draw_curve,
    defaults={"steps": 10_000, "tasks_per_step": 16, "model": "mlp", "width": 128},
    default_learner="cnp",
    learner={"inner_lr": 0.01, "min_std": 0.01, "loss": "mse"},
)
