"""Loops over token positions and prompts, compiled; each gives the very bits of the numpy code beside it.

The numpy code says what is computed; it serves where numba cannot be had, and judges the loops in the tests.
Exponentials, logarithms and roots of third order are numpy's own, taken between two loops: they differ from
one mathematical library to the next, and so from processor to processor.
"""

from agents.kernels.compiler import AVAILABLE, compiled

__all__ = ["AVAILABLE", "compiled"]
