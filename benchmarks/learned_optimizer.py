"""A learned optimiser beside tuned SGD, momentum, RMSprop and Adam.

    python benchmarks/learned_optimizer.py

Andrychowicz et al. 2016, section 3.1: f(theta) = |W theta - y|^2 with Gaussian W, y in 10
dimensions, 100 steps, and a small sigmoid network of 20 units (here on 50 points of a
sine wave in place of MNIST, which is not at hand). Rivals are tuned: the step size with
the lowest mean loss at step 100 on other problems, from 33 in 1e-3..10. The paper gives
its results as figures only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from report import device, save, spelled, table

import jaxmeta as jm

RIVALS: dict[str, Callable] = {
    "SGD": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "RMSprop": optax.rmsprop,
    "Adam": optax.adam,
}
OURS = "learned"


@dataclass
class Config:
    """Both problems; the defaults are the tables of learned_optimizer.md."""

    problems: tuple[str, ...] = ("quadratics", "network")
    seeds: tuple[int, ...] = (0, 1, 2)
    horizon: int = 100
    steps: int = 3000  # meta-steps
    learning_rate: float = 3e-3
    window: int = 10  # steps of the optimiser that are backpropagated through
    test_tasks: int = 256
    rates: int = 33

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        small = {"horizon": 5, "steps": 3, "test_tasks": 8, "rates": 3}
        return cls(("quadratics",), seeds=(0,), **small)


@jax.tree_util.register_dataclass
@dataclass
class Quadratics:
    """x = W [10, 10], y [10], standard normal; the query set is the same problem."""

    def sample(self, key: jax.Array) -> jm.Task:
        """Draw one problem."""
        key_w, key_y = jax.random.split(key)
        problem = jm.Batch(
            jax.random.normal(key_w, (10, 10)), jax.random.normal(key_y, (10,))
        )
        return jm.Task(problem, problem)


def problem(name: str):
    """(model, loss, sampler, tasks of a meta-step, weight of the last step's loss)."""
    if name == "quadratics":
        init = lambda key: jax.random.normal(key, (10,))
        model = jm.Model(init, lambda theta, w: w @ theta)
        total = lambda outputs, y: 10 * jnp.square(outputs - y)  # the sum, as a mean
        return model, total, Quadratics(), 16, 300.0
    model = jm.models.mlp(1, 1, (20,), activation=jax.nn.sigmoid)
    waves = jm.tasks.sinusoid(shots=50, queries=1)
    return model, jm.losses.mse, waves, 4, 10.0


def curve(model, loss, rule, tasks, keys, horizon: int) -> jax.Array:
    """Mean loss after each step of an optax rule, [horizon + 1]."""

    def one(task, key):
        theta = model.init(key)
        value = lambda theta: jm.losses.mean_loss(
            loss, model.apply(theta, task.support.x), task.support
        )

        def step(carry, _):
            theta, state = carry
            now, g = jax.value_and_grad(value)(theta)
            updates, state = rule.update(g, state, theta)
            return (optax.apply_updates(theta, updates), state), now

        (theta, _), values = jax.lax.scan(
            step, (theta, rule.init(theta)), length=horizon
        )
        return jnp.append(values, value(theta))

    keys = jax.random.clone(keys)  # every rule starts from the same weights
    return jnp.mean(jax.vmap(one)(tasks, keys), axis=0)


def curves_of(name: str, key: jax.Array, config: Config) -> dict[str, np.ndarray]:
    """Curves [horizon + 1] of the learned optimiser and its tuned rivals."""
    model, loss, sampler, tasks_per_step, last_weight = problem(name)
    key_fit, key_held_out, key_tune, key_test, key_start = jax.random.split(key, 5)
    learner = jm.learned_optimizer(
        model,
        inner_steps=config.horizon,
        loss=loss,
        last_weight=last_weight,
        adjoint=jm.Truncated(config.window),
    )
    params = jm.fit(
        learner,
        sampler,
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps)),
        ),
        steps=config.steps,
        key=key_fit,
        tasks_per_step=tasks_per_step,
    ).params
    held_out, tasks = (
        jm.sample_tasks(sampler, k, config.test_tasks) for k in (key_held_out, key_test)
    )
    rule = jm.lstm_optimizer(params)
    run_curve = partial(curve, model, loss)
    starts, tuning_starts = (
        jax.random.split(k, config.test_tasks) for k in (key_start, key_tune)
    )
    curves = {OURS: run_curve(rule, tasks, starts, config.horizon)}
    rates = jnp.logspace(-3, 1, config.rates)
    for rival, make in RIVALS.items():

        def last(rate, make=make):
            return run_curve(make(rate), held_out, tuning_starts, config.horizon)[-1]

        best = rates[jnp.nanargmin(jax.jit(jax.vmap(last))(rates))]
        curves[f"{rival}, {float(best):.3g}"] = run_curve(
            make(best), tasks, starts, config.horizon
        )
    return {who: np.asarray(values) for who, values in curves.items()}


def run(key: jax.Array, config: Config) -> dict[str, dict[str, np.ndarray]]:
    """problem -> optimiser -> loss after each step, [horizon + 1]."""
    return {n: curves_of(n, jax.random.clone(key), config) for n in config.problems}


def plot(results: dict[str, np.ndarray], path: Path) -> None:
    """Loss against steps, on one problem."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for who, values in results.items():
        axes.semilogy(values, label=who, lw=2 if who == OURS else 1)
    axes.set(title=path.stem, xlabel="step", ylabel="loss")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def rows(runs: list[dict]) -> list[dict]:
    """The table of one problem: loss at the last step; tuned rates differ by seed."""
    lines = []
    for i, who in enumerate([OURS, *RIVALS]):
        curves = [list(r.values())[i] for r in runs]
        ends = spelled([curve[-1] for curve in curves], ".3g")
        lines.append({"optimiser": who, f"loss at step {len(curves[0]) - 1}": ends})
    return lines


def main(config: Config) -> None:
    """Run all, print loss at the last step, keep curves and pictures."""
    runs = [run(jax.random.key(seed), config) for seed in config.seeds]
    for name in config.problems:
        its = [r[name] for r in runs]
        title = f"{name}, mean (range) of {len(config.seeds)} seeds, {device()}"
        table(title, rows(its))
        path = save(f"learned_optimizer_{name}", {"runs": its})
        plot(its[0], path.with_suffix(".png"))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
