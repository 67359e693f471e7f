"""Procedures over the framework's parts."""
