"""Read a credit application, ask for documents at a price, then decide."""

from domains.finance.credit_desk.world import CreditDesk, CreditWorld, RecordedCreditWorld

__all__ = ["CreditDesk", "CreditWorld", "RecordedCreditWorld"]
