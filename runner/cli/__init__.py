"""The command line."""

from runner.cli.exit import exit_codes


def main() -> None:
    """Run the command line; a user's mistake ends with exit code 2 and a message, never a traceback."""
    with exit_codes():
        from runner.cli.app import app  # within, since loading it takes a second in which a signal may come

        app()
