"""Sweeps: many experiments that differ in some keys, each played once, resumed where they were stopped."""
