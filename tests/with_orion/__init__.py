"""Oríon itself on our storage, and beside it."""
