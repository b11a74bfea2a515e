"""Objectives that are coroutines: many trials of a study in one event loop."""
