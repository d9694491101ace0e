"""What a user launches: experiments, engines, training, comparison, the command line."""

__tokenfield__ = "0.1.0"
