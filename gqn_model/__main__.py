"""`python -m gqn_model train ...` is `gqn train ...`: the form for `torchrun -m`."""

from __future__ import annotations

from gqn_model.cli import main

main(prog_name="gqn")
