"""`python -m runner`: the same as `tokenfield`."""

from runner.cli.app import main

main()
