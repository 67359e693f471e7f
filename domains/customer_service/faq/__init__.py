"""Questions to a shop, answered from its policy."""

from domains.customer_service.faq.source import Faq

__all__ = ["Faq"]
