"""`python -m gqn_model train ...` is `gqn train ...`: the form for `torchrun -m`."""

from __future__ import annotations

from gqn_model.commands import gqn

gqn(prog_name="gqn")
