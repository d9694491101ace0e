"""What a user reads: theory, traces, measures, figures."""

import runner  # which checks, as it is imported, that all four packages are tokenfield's own

__tokenfield__ = "0.1.0"

if getattr(runner, "__tokenfield__", None) is None:
    raise ImportError(
        f"tokenfield needs its own package `runner`, but Python finds another one at {runner.__file__}."
    )
