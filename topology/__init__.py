"""Who hears whom, and with what weight."""

__tokenfield__ = "0.1.0"
