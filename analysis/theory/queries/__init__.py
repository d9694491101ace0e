"""Queries on the whole sphere: the best one, one round ahead and fixed, and what codes lose to it."""
