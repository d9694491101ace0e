"""The command line."""

import os

from runner.cli.exit import exit_codes


def main() -> None:
    """Run the command line; a user's mistake ends with exit code 2 and a message, never a traceback."""
    with exit_codes():
        from runner.cli.app import app  # within, since a signal may come while it is loaded
        from runner.cli.completion import complete_bash

        if os.environ.get("_TOKENFIELD_COMPLETE") == "complete_bash":
            complete_bash(app)
        else:
            app()
