"""Memory and time of every adjoint: Conv4, one 5-way 1-shot task, 1 to 20 inner steps.

    python benchmarks/adjoints.py

Memory is what the compiled program needs for temporaries (compiled memory analysis), time
the median of meta-gradients whose turns are interleaved; the ratio of two times is the
median of the ratios of their turns. `Implicit` differentiates the
proximal objective of iMAML, all others that of MAML; `Forward` is left out (one tangent
for each of 113,000 weights).
"""

import statistics
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import tyro
from report import device, save, table, temporaries

import jaxmeta as jm

ADJOINTS = {
    "MixedMode()": jm.MixedMode(),
    "MixedMode(save_gradients=True)": jm.MixedMode(save_gradients=True),
    "Reverse('none')": jm.Reverse("none"),
    "Reverse('step')": jm.Reverse("step"),
    "Reverse('sqrt')": jm.Reverse("sqrt"),
    "Truncated(1)": jm.Truncated(1),
    "FirstOrder()": jm.FirstOrder(),
    "Implicit(cg, 5)": jm.Implicit("cg", iterations=5),
}
PLAIN, OURS = "Reverse('none')", "MixedMode()"


@dataclass
class Config:
    """The grid."""

    steps: tuple[int, ...] = (1, 5, 20)
    adjoints: tuple[str, ...] = tuple(ADJOINTS)
    width: int = 64
    queries: int = 5
    repeats: int = 15

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls((3,), (OURS, PLAIN), width=4, queries=1, repeats=1)


def one_task(key: jax.Array, queries: int) -> jm.Task:
    """A 5-way 1-shot task of noise: what is measured does not depend on the pixels."""
    labels = jnp.arange(5)
    images = jax.random.uniform(key, (5 * (1 + queries), 28, 28, 1))
    support = jm.Batch(images[:5], labels)
    return jm.Task(support, jm.Batch(images[5:], jnp.tile(labels, queries)))


def compiled(arguments, adjoint: str, steps: int, config: Config):
    """(program, seconds to compile)."""
    model = jm.models.conv4(5, widths=config.width)
    make = jm.imaml if "Implicit" in adjoint else jm.maml
    learner = make(model, inner_lr=0.01, inner_steps=steps, adjoint=ADJOINTS[adjoint])
    start = time.perf_counter()
    gradient = jax.jit(jax.grad(lambda p, t: learner.loss(p, t)[0]))
    program = gradient.lower(*arguments).compile()
    return program, time.perf_counter() - start


def run(key: jax.Array, config: Config) -> dict:
    """A row for each adjoint and number of steps, and the ratios that matter."""
    key_init, key_task = jax.random.split(key)
    params = jm.models.conv4(5, widths=config.width).init(key_init)
    arguments = params, one_task(key_task, config.queries)
    rows = []
    for steps in config.steps:
        programs = {a: compiled(arguments, a, steps, config) for a in config.adjoints}
        seconds = {a: [] for a in config.adjoints}
        for repeat in range(config.repeats + 1):
            for adjoint, (program, _) in programs.items():
                start = time.perf_counter()
                jax.block_until_ready(program(*arguments))
                if repeat:  # the first turn warms up
                    seconds[adjoint].append(time.perf_counter() - start)
        for adjoint, (program, compiling) in programs.items():
            memory = temporaries(program)
            rows.append(
                {
                    "adjoint": adjoint,
                    "steps": steps,
                    "MB": memory,
                    "ms": 1e3 * statistics.median(seconds[adjoint]),
                    "compile s": compiling,
                    "turns": seconds[adjoint],
                }
            )
    return {"rows": rows, "ratios": ratios(rows)}


def ratios(rows: list[dict]) -> dict[str, float]:
    """`MixedMode` beside itself at one step, and beside plain reverse at most steps."""
    most, least = (f(r["steps"] for r in rows) for f in (max, min))
    at = {(r["adjoint"], r["steps"]): r for r in rows}
    ours, plain = at[OURS, most], at[PLAIN, most]
    return {
        f"memory, {most} steps / {least} step": ours["MB"] / at[OURS, least]["MB"],
        "memory / plain reverse": ours["MB"] / plain["MB"],
        "time / plain reverse": statistics.median(
            a / b for a, b in zip(ours["turns"], plain["turns"], strict=True)
        ),
    }


def rows(results: dict) -> list[dict]:
    """A row an adjoint, a column a number of steps; compilation is in the file."""
    lines = {}
    for r in results["rows"]:
        line = lines.setdefault(r["adjoint"], {"adjoint": r["adjoint"]})
        column = "1 step" if r["steps"] == 1 else f"{r['steps']} steps"
        line[column] = f"{r['MB']:.1f} MB, {r['ms']:.1f} ms"
    return list(lines.values())


def main(config: Config) -> None:
    """Print the grid and the ratios, keep the numbers."""
    results = run(jax.random.key(0), config)
    title = f"Conv4-{config.width}, 5-way 1-shot, one task, {device()}"
    table(title, rows(results))
    found = ", ".join(f"{k} {v:.2f}" for k, v in results["ratios"].items())
    print("\nMixedMode():", found)
    print(save(f"adjoints_{config.queries}_queries", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
