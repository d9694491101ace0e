"""An explicit agent written into the weights of a transformer: histories, cells, ReLUs, wiring."""

from agents.transformer.compiler.compiled import Compiled, Precision, compile_policy

__all__ = ["Compiled", "Precision", "compile_policy"]
