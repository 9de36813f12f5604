"""Both command groups: `gqn-data` and `gqn`. A command parses, calls one function, prints.

Results go to stdout, progress and messages to stderr. Exit status: 0 done, 1 the data or the run failed,
2 usage, 130 interrupted. Nothing heavy is imported before a command runs, so that `--help` is quick.
"""

from __future__ import annotations

import click
