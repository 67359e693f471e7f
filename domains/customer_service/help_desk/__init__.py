"""Mend a printer over the telephone: ask what the caller can see, try repairs, or send a technician."""

from domains.customer_service.help_desk.world import HelpDesk, HelpDeskWorld

__all__ = ["HelpDesk", "HelpDeskWorld"]
