"""Tests of what happens between a store and a tracker, whichever tracker it is."""
