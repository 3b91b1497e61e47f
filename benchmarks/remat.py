"""What is stored of an inner loop: temporaries and time of a meta-gradient, by policy.

    python benchmarks/remat.py

MAML on a perceptron with hidden layers named "hidden" by `checkpoint_name`, on support
sets so large that activations, not weights, are what is stored. A policy goes to the
adjoint (what a step of the loop stores) or to the user's own model (what a forward pass
stores, within what the adjoint keeps). Memory is that of the compiled program; what a
policy moves to the host is counted apart.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
import tyro
from jax.ad_checkpoint import checkpoint_name
from report import device, save, table, temporaries

import jaxmeta as jm

POLICIES = jax.checkpoint_policies
NAMED = POLICIES.save_only_these_names("hidden")
OFFLOADED = POLICIES.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=["hidden"],
    offload_src="device",
    offload_dst="pinned_host",
)
DEFAULT = "MixedMode()"
# name -> (adjoint, the model's policy; "" = the model is as it is)
CASES: dict[str, tuple] = {
    DEFAULT: (jm.MixedMode(), ""),
    "MixedMode(save_gradients=True)": (jm.MixedMode(save_gradients=True), ""),
    "MixedMode(), model: nothing_saveable": (
        jm.MixedMode(),
        POLICIES.nothing_saveable,
    ),
    "MixedMode(), model: dots_saveable": (jm.MixedMode(), POLICIES.dots_saveable),
    "Reverse('none')": (jm.Reverse("none"), ""),
    "Reverse('none'), model: nothing_saveable": (
        jm.Reverse("none"),
        POLICIES.nothing_saveable,
    ),
    "Reverse('step'): nothing_saveable": (jm.Reverse("step"), ""),
    "Reverse('step'), dots_saveable": (
        jm.Reverse("step", policy=POLICIES.dots_saveable),
        "",
    ),
    "Reverse('step'), dots_with_no_batch_dims_saveable": (
        jm.Reverse("step", policy=POLICIES.dots_with_no_batch_dims_saveable),
        "",
    ),
    "Reverse('step'), hidden saved": (jm.Reverse("step", policy=NAMED), ""),
    "Reverse('step'), hidden offloaded": (jm.Reverse("step", policy=OFFLOADED), ""),
    "Reverse('sqrt')": (jm.Reverse("sqrt"), ""),
}


@dataclass
class Config:
    """The problem; tasks: of a meta-step, all at once."""

    cases: tuple[str, ...] = tuple(CASES)
    layers: int = 4
    width: int = 128
    shots: int = 100
    tasks: int = 4
    steps: int = 10
    repeats: int = 9

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        some = DEFAULT, "Reverse('step'), hidden offloaded"
        return cls(some, layers=1, width=4, shots=2, tasks=2, steps=2, repeats=1)


def network(config: Config, policy) -> jm.Model:
    """A user's own: named hidden layers, and a policy for what it stores."""
    plain = jm.models.mlp(64, 5, (config.width,) * config.layers)

    def apply(params, x):
        for i in range(config.layers):
            layer = params[f"dense{i + 1}"]
            x = jnp.tanh(x @ layer["kernel"] + layer["bias"][None])
            x = checkpoint_name(x, "hidden")
        return x @ params["head"]["kernel"] + params["head"]["bias"][None]

    return jm.Model(
        plain.init, jax.checkpoint(apply, policy=policy) if policy else apply
    )


def some_tasks(key: jax.Array, config: Config) -> jm.Task:
    """5 ways, of noise: what is measured does not depend on it."""
    x = jax.random.normal(key, (config.tasks, 5 * config.shots, 64))
    y = jnp.tile(jnp.arange(5), (config.tasks, config.shots))
    return jm.Task(jm.Batch(x, y), jm.Batch(x, y))


def run(key: jax.Array, config: Config) -> dict[str, list[dict]]:
    """A row for each case, all taking turns."""
    key_init, key_tasks = jax.random.split(key)
    tasks, programs = some_tasks(key_tasks, config), {}
    params = network(config, "").init(key_init)
    for case in config.cases:
        adjoint, policy = CASES[case]
        how = {"inner_lr": 0.01, "inner_steps": config.steps, "adjoint": adjoint}
        learner = jm.maml(network(config, policy), **how)
        gradient = jm.meta_gradient(learner, config.tasks)
        programs[case] = jax.jit(gradient).lower(params, tasks).compile()
    seconds = turns(programs, (params, tasks), config.repeats)
    host = lambda p: p.memory_analysis().host_temp_size_in_bytes / 2**20
    return {
        "rows": [
            {"case": c, "MB": temporaries(p), "host": host(p), "seconds": seconds[c]}
            for c, p in programs.items()
        ]
    }


def turns(programs: dict[str, Callable], arguments: tuple, repeats: int):
    """Seconds of each, one after the other, again and again; the first turn warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(repeats + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def rows(results: dict) -> list[dict]:
    """Of the table; times are medians, the ratio that of the ratios of single turns."""
    first = results["rows"][0]["seconds"]
    lines = []
    for row in results["rows"]:
        pairs = zip(row["seconds"], first, strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        lines.append(
            {
                "what is stored": row["case"],
                "temporaries, MB": f"{row['MB']:.1f}",
                "on the host, MB": f"{row['host']:.1f}",
                "ms": f"{1e3 * statistics.median(row['seconds']):.1f}",
                "times the first": f"{ratio:.2f}",
            }
        )
    return lines


def main(config: Config) -> None:
    """Measure all cases, print the table, keep the numbers."""
    results = {"config": asdict(config), **run(jax.random.key(0), config)}
    title = f"{config.tasks} tasks, {config.steps} inner steps, {device()}"
    table(title, rows(results))
    print(save("remat", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
