"""What a user reads: theory, traces, measures, figures."""

__tokenfield__ = "0.1.0"
