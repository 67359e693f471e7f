"""Worlds: the engines that domains are built on, what they say and understand, and other people's environments and data as worlds."""
