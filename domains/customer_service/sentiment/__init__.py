"""How the writers of product reviews feel, as twenty people judged."""

from domains.customer_service.sentiment.source import Sentiment

__all__ = ["Sentiment"]
