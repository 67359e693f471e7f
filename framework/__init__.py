"""Touchstone: reinforcement learning on language models in worlds whose optimum is known."""

import sys

# Stable-Baselines3 tries to import the unmaintained `gym`, which some data packages bring along and which greets with a page of
# warnings. Where nobody has imported it yet, it is as good as absent.
sys.modules.setdefault("gym", None)  # type: ignore[arg-type]
