"""Read an intensive care chart, choose fluids and pressor for the next four hours."""

from domains.healthcare.icu_sepsis.world import IcuSepsis, SepsisWorld

__all__ = ["IcuSepsis", "SepsisWorld"]
