"""Speed, measured as ratios beside a peer in one run: ``python -m benchmarks``."""
