"""Changes of trials and experiments, noted in the outbox together with the change itself."""
