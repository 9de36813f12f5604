"""Both commands from a checkout: `python cli.py data ...` is `gqn-data ...`, `python cli.py model ...` is `gqn ...`.

Not installed. The entry points are `gqn_data.__main__:main` and `gqn_model.__main__:main`.
"""

from __future__ import annotations

import click

from gqn_data.cli import main as data
from gqn_data.cli_options import SETTINGS
from gqn_data.version import VERSION
from gqn_model.cli import main as model


@click.group(context_settings=SETTINGS)
@click.version_option(VERSION)
def main() -> None:
    """Run the commands of gqn-data (`data`) and of gqn (`model`) from a checkout."""


main.add_command(data, "data")
main.add_command(model, "model")

if __name__ == "__main__":
    main()
