"""What one token position knows and does: prior, belief, policy, channel, step.

Importing this package loads numpy alone: an actor process pays for neither ray nor torch.
"""

__tokenfield__ = "0.1.0"
