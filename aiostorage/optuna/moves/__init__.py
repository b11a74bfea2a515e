"""Studies copied from and to the storages of Optuna itself."""
