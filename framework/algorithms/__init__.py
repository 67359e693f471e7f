"""Ways to improve a policy."""
