"""`python -m gqn_model train ...` is `gqn train ...`: the form for `torchrun -m`."""

from __future__ import annotations

import signal


def main() -> None:
    """Start the command. Until its imports are done, Ctrl-C ends the process without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from gqn_model.cli import main as command

    command(prog_name="gqn")


if __name__ == "__main__":
    main()
