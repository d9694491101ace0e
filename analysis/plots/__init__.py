"""Figures: from a frame to a matplotlib figure, in one style."""
