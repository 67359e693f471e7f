"""British and American spelling."""

from domains.customer_service.dialect.source import Dialect

__all__ = ["Dialect"]
