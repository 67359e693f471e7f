"""What the numbers of a policy gradient in words mean when it does not learn, and which setting to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from framework.errors import TrainingError

_PATIENCE = 20  # batches without anything to learn from, after which a run is ended
_FLAT, _UNHEARD, _CUT = 0.8, 0.5, 0.2  # shares of groups and replies that call for a word
_COLLAPSED = 0.05  # share of the entropy at the start
_FAR, _STRIDE, _GAP = 20.0, 0.5, 0.1  # nats: from the reference, a turn; in a batch, a draw; between what sampled and what learns, a draw
_JUDGED, _LITTLE = 10, 0.02  # batches over which a critic is expected to explain something, and a share that is next to nothing
_AGAIN = 20  # batches without a fault after which it is news again


class Diagnosis:
    """Reads the numbers of each batch. What is wrong is said when it begins, and again only after it was well for a while.

    Args:
        state: of another diagnosis, to go on from.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self.state: dict[str, Any] = {"batches": 0, "seen": {}, "varied": False, "entropy": 0.0, "judged": 0, "explained": 0.0, **(state or {})}

    def look(self, metrics: Mapping[str, float]) -> list[str]:
        """Fresh warnings.

        Args:
            metrics: of a batch, by name; what an algorithm does not measure is not judged.

        Raises:
            TrainingError: from the beginning and for many batches there was nothing to learn from.
        """
        self.state["batches"] += 1
        self.state["varied"] |= metrics.get("rollout/flat", 0.0) < 1
        self.state["entropy"] = self.state["entropy"] or metrics.get("rollout/entropy", 0.0)
        if (explained := metrics.get("train/explained_variance")) is not None:
            self.state["judged"] += 1  # the mean of the first batches, then one that forgets
            self.state["explained"] += (explained - self.state["explained"]) / min(self.state["judged"], _JUDGED)
        found = dict(self._faults(metrics))
        if not self.state["varied"] and self.state["batches"] == _PATIENCE:
            raise TrainingError(f"in each of the first {_PATIENCE} batches {found['flat']}")
        seen: dict[str, int] = self.state["seen"]
        fresh = [told for name, told in found.items() if self.state["batches"] - seen.get(name, -_AGAIN) >= _AGAIN]
        seen.update(dict.fromkeys(found, self.state["batches"]))
        return fresh

    def _faults(self, told: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """Names and descriptions of what is wrong."""
        share, earned = told.get("rollout/flat", 0.0), told.get("rollout/return", 0.0)
        if share == 1:
            seen = f"all {told['rollout/group']:.0f} episodes of every group earned the same ({earned:g} on average), so nothing tells better from worse"
            yield "flat", f"{seen}; if more can be earned, begin with warm_start=sft, raise policy.temperature or algo.group_size, or look at the reward"
        elif share >= _FLAT:
            yield "few", f"in {share:.0%} of the groups all episodes earned the same; if more can be earned, raise algo.group_size or policy.temperature"
        if (unheard := told.get("rollout/not_understood", 0.0)) >= _UNHEARD:
            yield "unheard", f"{unheard:.0%} of the replies are no act that is allowed; begin with warm_start=sft, or with more of its updates"
        if (cut := told.get("rollout/cut_off", 0.0)) >= _CUT:
            yield "cut", f"{cut:.0%} of the replies were cut off before they ended; raise policy.max_tokens, or begin with warm_start=sft"
        if (entropy := told.get("rollout/entropy", 1.0)) < _COLLAPSED * self.state["entropy"]:
            seen = f"entropy fell from {self.state['entropy']:.3g} nats a draw to {entropy:.3g}, so replies hardly vary any more"
            yield "entropy", f"{seen}; if a return of {earned:g} is not enough, lower algo.learning_rate or set algo.kl_coef=0.05"
        if (kl := told.get("train/kl", 0.0)) > _FAR:
            yield "kl", f"the policy is {kl:.1f} nats a turn away from where it began; raise algo.kl_coef, set algo.kl_target, or lower algo.learning_rate"
        if (stride := told.get("train/approx_kl", 0.0)) > _STRIDE:
            yield "stride", f"one batch moved the policy by {stride:.2g} nats a draw; lower algo.learning_rate or algo.n_epochs, or set algo.kl_coef=0.05"
        if (gap := told.get("train/sampling_gap", 0.0)) > _GAP:
            yield "gap", f"log-probabilities differ by {gap:.2f} nats a draw between sampling and learning; use lm.dtype=float32"
        if (explained := self.state["explained"]) < _LITTLE and self.state["judged"] >= _JUDGED:
            seen = f"the critic explains next to nothing of the returns ({explained:.2f} of their variance)"
            yield "critic", f"{seen}; raise algo.critic_warmup, or algo.vf_coef where policy and critic share a trunk"
