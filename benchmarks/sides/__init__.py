"""The sides: aiostorage on its engines, peers, and limits."""
