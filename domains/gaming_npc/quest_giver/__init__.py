"""Keep a player company through a session: which quest, how hard, and when to let them go."""

from domains.gaming_npc.quest_giver.world import QuestGiver, QuestGiverWorld

__all__ = ["QuestGiver", "QuestGiverWorld"]
