"""A colleague rings about a blue baby: ask for findings, then decide what it is and where the baby goes."""

from domains.healthcare.newborn_triage.world import NewbornTriage, NewbornTriageWorld

__all__ = ["NewbornTriage", "NewbornTriageWorld"]
