"""Ways to act on text."""
