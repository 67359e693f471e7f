"""How far from what a reward was fitted to: Mahalanobis' distance among what it makes of turns, as a sign of what it was not trained on.

See Lee et al., 2018, arXiv:1807.03888. T: turns, W: width of what is made of one; further dimensions may stand before them.
"""

from __future__ import annotations

import torch
from torch import Tensor

_RIDGE = 1e-3  # of the mean variance


def fitted_to(embedded: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `[..., W]` and inverse covariance `[..., W, W]` of turns `[..., T, W]`, with a little ridge: what never varies must not weigh without end."""
    embedded = embedded.double()
    centre = embedded.mean(dim=-2)
    away = embedded - centre.unsqueeze(-2)
    covariance = away.mT @ away / away.shape[-2]
    ridge = _RIDGE * covariance.diagonal(dim1=-2, dim2=-1).mean(dim=-1) + torch.finfo(torch.float32).tiny
    eye = torch.eye(covariance.shape[-1], device=covariance.device)
    return centre.float(), torch.linalg.inv(covariance + ridge[..., None, None] * eye).float()


def distance(embedded: Tensor, centre: Tensor, precision: Tensor) -> Tensor:
    """Of turns `[..., T, W]` from those, squared, over W: about 1 among those themselves, `[..., T]`."""
    away = embedded - centre.unsqueeze(-2)
    return (away @ precision * away).mean(dim=-1)
