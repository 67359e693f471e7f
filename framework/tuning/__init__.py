"""A language model is tuned on conversations or preferences, watched meanwhile and judged at the end."""
