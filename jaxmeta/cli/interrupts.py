"""Ctrl-C: once to stop after the chunk that runs, twice to stop at once; SIGTERM alike."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

CODE = 130  # what a shell says of a process that Ctrl-C ended
SIGNALS = signal.SIGINT, signal.SIGTERM


class Interrupts:
    """`asked`: the first of Ctrl-C (SIGINT) and SIGTERM that came; 0 = none."""

    asked: int = 0


@contextlib.contextmanager
def interruptible(how_to_go_on: str) -> Iterator[Interrupts]:
    """Within it, the first signal only sets `asked`; the second ends the process.

    The second is seen by a thread, for Python's own handlers wait until the device has
    done what it is doing. Elsewhere than in the main thread, signals are left as they are.

    Args: how_to_go_on: said when it ends at once.
    """
    said = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield said
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    threading.Thread(
        target=_watch, args=(ours, said, how_to_go_on), daemon=True
    ).start()
    before = {s: signal.signal(s, lambda *_: None) for s in SIGNALS}
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield said
    finally:
        signal.set_wakeup_fd(wakeup)
        for s, handler in before.items():
            signal.signal(s, handler)
        theirs.close()  # the thread reads the end


def _watch(ours: socket.socket, said: Interrupts, how_to_go_on: str) -> None:
    with ours:
        while number := ours.recv(1):
            if number[0] not in SIGNALS:
                continue
            if said.asked:
                print(f"stopped at once; {how_to_go_on}", file=sys.stderr, flush=True)
                os._exit(CODE)
            said.asked = number[0]
            text = "stopping after these steps, to save them; once more stops at once"
            print(text, file=sys.stderr, flush=True)
