"""Closed forms: where risk needs neither simulation nor state evolution."""
