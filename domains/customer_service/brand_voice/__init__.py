"""Messages of a shop, rewritten in the voice of a brand."""

from domains.customer_service.brand_voice.source import BrandVoice

__all__ = ["BrandVoice"]
