"""The log of changes of trials: its rows, their cursors, and what they say."""
