"""What a user launches: experiments, engines, training, comparison, the command line."""

from runner.guard import check_packages

__tokenfield__ = "0.1.0"

check_packages()
