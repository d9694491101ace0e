"""Simulations: run one, and resume one that was stopped."""
