"""The battery management system: estimation, balancing, protection, and the loop that runs them."""
