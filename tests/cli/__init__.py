"""Tests of the command, most of them as somebody else would run it."""
