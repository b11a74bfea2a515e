"""What experiments, trials and locks mean, over any engine."""
