"""Tests: claims that every change must keep."""
