"""Measures: pure functions from numbers or frames to frames, with standard errors by prompt."""
