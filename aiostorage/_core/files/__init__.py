"""Files that a store or a dump is kept in: the path that was meant, what is there, and its place."""
