"""Calls of the driver: in time, repeated, looked up after a lost answer, and taken back."""
