"""Plain words and clinical terms."""

from domains.healthcare.terminology.source import Terminology

__all__ = ["Terminology"]
