"""Sine waves, the first experiment of the MAML paper."""

from jaxmeta import tasks
from jaxmeta.cli.options import given_or
from jaxmeta.cli.sources.source import MSE, draw_curve, everywhere, source

source(
    name="sinusoid",
    description="sine waves of random amplitude and phase",
    kind="regression",
    samplers=lambda options: everywhere(
        tasks.sinusoid(given_or(options.shots, 10), given_or(options.queries, 10))
    ),
    headline=MSE,
    draw=draw_curve,
    same_curve=True,
    defaults={
        **{"shots": 10, "queries": 10, "steps": 20_000, "tasks_per_step": 25},
        **{"model": "mlp", "width": 40},
    },
    default_learner="maml",
    options=("shots", "queries"),
    learner={"inner_lr": 0.01, "loss": "mse"},
)
