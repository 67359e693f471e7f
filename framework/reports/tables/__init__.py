"""Finished runs, gathered and compared: what `experiment=report` shows."""
