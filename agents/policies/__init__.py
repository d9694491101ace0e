"""What a token asks, says and believes; a new policy is a module here and an entry in `POLICIES`."""

from agents.policies import adaptive, flood, gossip, gradient, learned, static
from agents.policies.base import Policy, PolicyEntry

POLICIES: dict[str, PolicyEntry] = {
    "adaptive": adaptive.ENTRY,
    "static": static.ENTRY,
    "gossip": gossip.ENTRY,
    "gradient": gradient.ENTRY,
    "flood": flood.ENTRY,
    "learned": learned.ENTRY,
}

__all__ = ["POLICIES", "Policy", "PolicyEntry"]
