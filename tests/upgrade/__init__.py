"""Stores of older layouts, and their upgrade."""
