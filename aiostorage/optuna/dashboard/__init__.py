"""optuna-dashboard over a store, with its other experiments as studies that can be read."""
