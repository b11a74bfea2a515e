"""How a tracker is told: changes are noted in the outbox, and one deliverer sends them."""
