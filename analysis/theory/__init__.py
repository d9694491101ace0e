"""Theory: what risk to expect, round by round, without running an agent.

Nothing here imports a policy, a belief, a channel or an engine: an oracle that shares code with its
subject proves nothing.
"""
