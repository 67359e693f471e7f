"""The language model under heads: text in, features out."""
