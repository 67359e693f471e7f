"""Find out what a buyer came for, then haggle."""

from domains.gaming_npc.merchant.world import Merchant, MerchantWorld

__all__ = ["Merchant", "MerchantWorld"]
