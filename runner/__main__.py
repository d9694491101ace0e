"""`python -m runner`: the same as `tokenfield`."""

from runner.cli import main

main()
