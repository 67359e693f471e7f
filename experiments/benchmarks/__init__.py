"""Measurements of speed against the usual way of doing the same."""
