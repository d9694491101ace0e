"""Tests of `runner`."""
