"""Tests of `topology`."""
