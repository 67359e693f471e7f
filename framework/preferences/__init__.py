"""Preferences: who plays, who judges, what is fitted to the judgements, how well it agrees and how far it can be climbed."""
