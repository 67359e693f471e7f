"""The published process: ICU-Sepsis, a decision process estimated from the records of MIMIC-III, read from the package `icu-sepsis`.

Provenance. Komorowski et al. (Nature Medicine 2018) cut the stays of septic patients into spans of four hours, clustered what was
measured in each into states and the doses of fluids and vasopressors into five levels each; Choudhary et al. (arXiv 2406.05646)
rebuilt this as a benchmark: acts tried 20 times or less in a state are left out, the rest move as recorded. What the 47 columns of
a state mean stands in the authors' `create_rl_table.py`, not in the package; correlations within the data bear it out (see the tests).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from framework.data_packages import package_file
from framework.types import Bools, Floats

STATES, LEVELS = 713, 5
DIED, SURVIVED = 713, 714
"""Where a stay ends, in the columns of `Records.leads`: dead or alive after ninety days."""

COLUMNS = tuple(
    """
    gender mechvent max_dose_vaso re_admission
    age Weight_kg GCS HR SysBP MeanBP DiaBP RR Temp_C FiO2_1 Potassium Sodium Chloride Glucose Magnesium Calcium Hb WBC_count
    Platelets_count PTT PT Arterial_pH paO2 paCO2 Arterial_BE HCO3 Arterial_lactate SOFA SIRS Shock_Index PaO2_FiO2 cumulated_balance
    SpO2 BUN Creatinine SGOT SGPT Total_bili INR input_total input_4hourly output_total output_4hourly
    """.split()
)


@dataclass(frozen=True)
class Records:
    """What the package holds, without its three states for the end; act 5 f + p is fluid level f and pressor level p."""

    openings: Floats  # [713] where stays begin
    allowed: Bools  # [713, 25] acts that were tried often enough
    leads: csr_matrix  # [713 * 25, 715] what follows each allowed act
    clinicians: Floats  # [713, 25] how often each act was taken, allowed or not
    centres: Floats  # [713, 47] means of the columns, in standard deviations
    sofa: Floats  # [713] mean SOFA score, 0 to 24: how far organs have failed


@cache
def records() -> Records:
    """Reads the package's files, once."""
    assets = Path("envs/assets")
    lines = package_file("icu_sepsis", str(assets / "admissible_actions.txt"), extra="healthcare").read_text(encoding="utf-8").splitlines()
    allowed = np.zeros((STATES, LEVELS**2), bool)
    for state, acts in enumerate(lines[1 : STATES + 1]):
        allowed[state, [int(act) for act in acts.split()]] = True
    with np.load(package_file("icu_sepsis", str(assets / "dynamics.npz"), extra="healthcare")) as file:
        moves = file["tx_mat"][:STATES, :, : SURVIVED + 1] * allowed[:, :, None]
        return Records(
            openings=file["d_0"][:STATES],
            allowed=allowed,
            leads=csr_matrix(moves.reshape(allowed.size, -1)),
            clinicians=file["expert_policy"][:STATES],
            centres=file["state_cluster_centers"][:STATES],
            sofa=file["sofa_scores"][:STATES],
        )
