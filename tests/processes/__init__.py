"""Tests with real processes, which are really killed."""
