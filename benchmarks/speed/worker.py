"""One peer on one workload in a process of its own; commands on stdin, JSON on stdout.

Not called by hand: `run.py` starts it.
"""

import argparse
import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path

import adaptation_workloads
import agents_workloads
import numpy as np
import two_levels_workloads
import workloads

KINDS = {  # files -> what they have sizes of
    "peers": (workloads, workloads.WORKLOADS | {"E": workloads.END_TO_END}),
    "agents": (agents_workloads, agents_workloads.TRIALS),
    "adaptation": (adaptation_workloads, adaptation_workloads.PAIRS),
    "two_levels": (two_levels_workloads, two_levels_workloads.PROBLEMS),
}
TURN_S = 0.1  # short steps take turns in bursts, each after one step that warms caches


def turn(peer, clock) -> float:
    """Seconds a step, over one step or as many as fill a turn."""
    start = clock()
    peer.step()
    once = clock() - start
    n = int(TURN_S / once)
    if n < 2:
        return once
    start = clock()
    for _ in range(n):
        peer.step()
    return (clock() - start) / n


def peak_mb() -> float:
    """The most that was resident of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mb() -> float:
    """What is resident of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("workload")
    parser.add_argument("--gradient", help="write the float64 gradient of a small case")
    options = parser.parse_args()
    files = next(f for f, (_, named) in KINDS.items() if options.workload in named)
    of, named = KINDS[files]
    w, clock = named[options.workload], time.perf_counter
    if files != "peers":  # seconds of one core, which jobs beside it change little
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        clock = time.process_time
    real = os.dup(1)
    os.dup2(2, 1)  # what libraries print goes to stderr
    say = lambda **message: os.write(real, (json.dumps(message) + "\n").encode())
    if options.peer.startswith(("jaxmeta", "naive JAX")):
        if options.gradient:
            import jax

            jax.config.update("jax_enable_x64", True)
        peers = importlib.import_module(f"{files}_jax").PEERS
    else:
        peers = importlib.import_module(f"{files}_torch").PEERS
    if w.method not in getattr(peers[options.peer], "methods", (w.method,)):
        return say(status="not offered")
    if options.gradient:
        w = w.small()
    dtype = np.float64 if options.gradient else np.float32
    peer = peers[options.peer](w, of.data(w, dtype), of.weights(w, dtype))
    if options.gradient:
        np.savez(options.gradient, **peer.gradient())
        return say(status="done")
    base = peak_mb()
    start = clock()
    peer.step()
    say(status="ready", first_s=clock() - start)
    for line in sys.stdin:
        command, *numbers = line.split()
        if command == "end":
            break
        if command == "run":  # so many steps more, for what they leave behind
            peer.run(int(numbers[0]))
            say(resident_mb=resident_mb(), peak_mb=peak_mb(), **peer.told())
        else:
            say(s=turn(peer, clock))
    told = getattr(peer, "told", dict)()
    say(peak_mb=peak_mb(), before_mb=base, **told)


main()
