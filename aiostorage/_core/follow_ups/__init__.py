"""Follow ups: what an engine inserts after its operations, because it depends on their results."""
