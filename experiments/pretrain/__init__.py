"""How the small language model that comes with the package is made: its text, its tokenizer, its training."""

from experiments.pretrain.pretrain import Pretrain

__all__ = ["Pretrain"]
