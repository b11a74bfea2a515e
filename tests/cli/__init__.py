"""Tests of the command, most of them run in a process of its own, as a user does."""
