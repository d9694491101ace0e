"""Experiments and studies as files: what may be written in them, and what it means."""
