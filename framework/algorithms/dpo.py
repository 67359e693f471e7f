"""Direct preference optimisation: `algo=dpo algo.loss=sigmoid|ipo|robust|hinge`. The loop is that of `PreferenceDescent`, the maths `framework.losses`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from framework import losses
from framework.algorithms.preference_descent import Compared, PreferenceDescent
from framework.config import NonNegative


@dataclass(kw_only=True)
class DPO(PreferenceDescent):
    """Makes the chosen completion likelier than the rejected one, both measured against the model as it began.

    Attributes:
        loss: sigmoid (Rafailov et al., 2023), ipo (Azar et al., 2023; a mean over tokens), robust (Chowdhury et al., 2024) or hinge
            (SLiC-HF: Zhao et al., 2023).
        flipped: share of pairs that are taken to be the wrong way round, for robust.
        sft_coef: weight of the chosen completion's negative log-likelihood, a mean over its tokens, which keeps it from becoming
            less likely along with the rejected one (RPO: Pang et al., 2024).
    """

    loss: Literal["sigmoid", "ipo", "robust", "hinge"]
    flipped: Annotated[float, Field(ge=0, lt=0.5)]
    sft_coef: NonNegative

    def terms(self, pairs: Compared) -> Tensor:
        """See `PreferenceDescent`."""
        return self._preference(pairs) - self.sft_coef * pairs.means[:, 0]

    def _preference(self, pairs: Compared) -> Tensor:
        chosen, rejected = (pairs.ratios / pairs.lengths if self.loss == "ipo" else pairs.ratios).unbind(1)
        if self.loss == "robust":
            return losses.robust_dpo(chosen, rejected, self.beta, self.flipped)
        return {"sigmoid": losses.dpo, "ipo": losses.ipo, "hinge": losses.hinge}[self.loss](chosen, rejected, self.beta)
