"""Sums of two sinusoids: slow and fast waves of random amplitudes and phases."""

from jaxmeta import tasks
from jaxmeta.cli.options import given_or
from jaxmeta.cli.sources.source import MSE, draw_curve, everywhere, source

source(
    name="harmonics",
    description="sums of two sinusoids, a slow and a fast one",
    kind="regression",
    samplers=lambda options: everywhere(
        tasks.harmonics(given_or(options.shots, 20), given_or(options.queries, 20))
    ),
    headline=MSE,
    draw=draw_curve,
    same_curve=True,
    defaults={
        **{"shots": 20, "queries": 20, "steps": 20_000, "tasks_per_step": 25},
        **{"model": "mlp", "width": 80},
    },
    default_learner="maml",
    options=("shots", "queries"),
    learner={"inner_lr": 0.01, "loss": "mse"},
)
