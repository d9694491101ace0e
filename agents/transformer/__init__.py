"""The constrained linear attention transformer: torch model, export to agents, compiler of agents into it."""
