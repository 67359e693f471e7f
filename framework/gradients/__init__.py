"""Policy gradients against the exact one, in a world small enough to list."""
