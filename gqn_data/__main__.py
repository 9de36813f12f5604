"""`python -m gqn_data convert ...` is `gqn-data convert ...`."""

from __future__ import annotations

from gqn_data.cli import main

main(prog_name="gqn-data")
