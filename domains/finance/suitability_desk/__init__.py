"""Interview a client, then recommend a portfolio."""

from domains.finance.suitability_desk.world import SuitabilityDesk, SuitabilityWorld

__all__ = ["SuitabilityDesk", "SuitabilityWorld"]
