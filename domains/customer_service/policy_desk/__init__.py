"""Settle tickets under a written policy, with a customer and a database."""

from domains.customer_service.policy_desk.reliability import pass_k, repeated_trials
from domains.customer_service.policy_desk.world import PolicyDesk, PolicyDeskWorld

__all__ = ["PolicyDesk", "PolicyDeskWorld", "pass_k", "repeated_trials"]
