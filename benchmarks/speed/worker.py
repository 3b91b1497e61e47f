"""One peer on one workload in a process of its own; commands on stdin, JSON on stdout.

Not called by hand: `run.py` starts it.
"""

import argparse
import json
import os
import resource
import sys
import time

import numpy as np
from workloads import END_TO_END, WORKLOADS, data, weights

TURN_S = 0.1  # short steps take turns in bursts, each after one step that warms caches


def turn(peer) -> float:
    """Seconds a step, over one step or as many as fill a turn."""
    start = time.perf_counter()
    peer.step()
    once = time.perf_counter() - start
    n = int(TURN_S / once)
    if n < 2:
        return once
    start = time.perf_counter()
    for _ in range(n):
        peer.step()
    return (time.perf_counter() - start) / n


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("workload")
    parser.add_argument("--gradient", help="write the float64 gradient of a small case")
    options = parser.parse_args()
    w = (WORKLOADS | {"E": END_TO_END})[options.workload]
    real = os.dup(1)
    os.dup2(2, 1)  # what libraries print goes to stderr
    say = lambda **message: os.write(real, (json.dumps(message) + "\n").encode())
    if options.peer.startswith(("jaxmeta", "naive JAX")):
        if options.gradient:
            import jax

            jax.config.update("jax_enable_x64", True)
        from peers_jax import PEERS
    else:
        from peers_torch import PEERS
    if w.method not in getattr(PEERS[options.peer], "methods", (w.method,)):
        return say(status="not offered")
    if options.gradient:
        w = w.small()
    dtype = np.float64 if options.gradient else np.float32
    peer = PEERS[options.peer](w, data(w, dtype), weights(w, dtype))
    if options.gradient:
        np.savez(options.gradient, **peer.gradient())
        return say(status="done")
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    peer.step()
    say(status="ready", first_s=time.perf_counter() - start)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        say(s=turn(peer))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    say(peak_mb=peak / 1024, before_mb=base / 1024)


main()
