"""The measured defaults of each kind of device, in one place.

Each is an argument somewhere (`conv=` of a model, `tasks_at_once=` of `fit`, `evaluate`
and `make_step`), and these functions say what None means there. The measurements
behind them are in docs/performance.md.
"""

from typing import Literal

import jax

ConvMethod = Literal["patches", "winograd", "lax"]

# On a CPU, tasks run at once while their query and support inputs have together at most
# this many numbers (benchmarks/meta_step.py); more of them fall out of the cache.
CPU_INPUTS_AT_ONCE = 4096
# From so many output positions (examples x height x width) on, Winograd's fewer products
# outweigh its many small passes on a CPU (benchmarks/meta_step.py).
CPU_WINOGRAD_POSITIONS = 2000


def conv_method(positions: int, channels: int, stride: int) -> ConvMethod:
    """How a 3x3 convolution is computed.

    Args:
        positions: output values of a channel: examples x height x width; a number that
            is not known (`jax.export` with a symbolic number of examples) counts as few.
        channels: of the input. stride: 1 or 2.
    """
    known = isinstance(positions, int)
    big = known and positions >= CPU_WINOGRAD_POSITIONS and channels >= 16
    if jax.default_backend() == "cpu" and big and stride == 1:
        return "winograd"
    return "patches"


def tasks_at_once(tasks: int, inputs: int) -> int:
    """How many tasks run in one vmap: the largest divisor of `tasks` that fits.

    On a CPU small tasks run together and large ones (images) one after the other; on
    accelerators all tasks run at once.

    Args: tasks: of a meta-step; inputs: numbers in the inputs of one task.
    """
    if jax.default_backend() != "cpu":
        return tasks
    fit = max(1, CPU_INPUTS_AT_ONCE // max(1, inputs))
    return max(n for n in range(1, tasks + 1) if tasks % n == 0 and n <= fit)
