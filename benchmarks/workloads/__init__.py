"""The workloads, a module for each family."""
