"""The command, `manifuse` or `python -m proxy`."""

import os
import signal
import sys


def _fill_standard_streams() -> None:
    """Let what is opened next not be taken for a standard stream that whoever started us has closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


_fill_standard_streams()
if sys.argv[1:2] == ["serve"]:
    # SIGHUP is a wish for another configuration. It waits until somebody listens (`serving.told`), and ends nothing.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

from proxy.cli import main  # noqa: E402 - what it imports may log, or start threads

if __name__ == "__main__":
    main()
