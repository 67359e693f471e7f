"""Networks read from BIF text, and joint distributions against the full product of all tables."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from framework.data_packages import package_file
from framework.worlds.bayes_net import read_bif

ROOT = Path(__file__).resolve().parents[2]

SPRINKLER = """
network sprinkler { }
variable Rain { type discrete [ 2 ] { yes, no }; }
variable Sprinkler { type discrete [ 2 ] { on, off }; }
variable Grass { type discrete [ 3 ] { wet, damp, dry }; }
probability ( Rain ) { table 0.2, 0.8; }
probability ( Sprinkler | Rain ) { (yes) 0.01, 0.99; (no) 0.4, 0.6; }
probability ( Grass | Sprinkler, Rain ) {
  (on, yes) 0.98, 0.01, 0.01;
  (off, yes) 0.7, 0.2, 0.1;
  (on, no) 0.8, 0.1, 0.1;
  (off, no) 0.0, 0.1, 0.9;
}
"""


def test_a_small_network_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "sprinkler.bif"
    path.write_text(SPRINKLER)
    net = read_bif(path)
    assert net.nodes["Grass"].states == ("wet", "damp", "dry") and net.nodes["Grass"].parents == ("Sprinkler", "Rain")
    wet = 0.2 * 0.01 * 0.98 + 0.2 * 0.99 * 0.7 + 0.8 * 0.4 * 0.8
    assert net.joint(["Grass"])[0] == pytest.approx(wet)
    np.testing.assert_allclose(net.joint(["Rain"], {"Grass": "wet"}), [0.2 * 0.01 * 0.98 + 0.2 * 0.99 * 0.7, 0.8 * 0.4 * 0.8])
    np.testing.assert_allclose(net.joint(["Grass", "Rain"]).sum(axis=0), [0.2, 0.8])
    assert net.joint([], {"Rain": "yes", "Sprinkler": "off"}) == pytest.approx(0.2 * 0.99)
    with pytest.raises(ValueError, match="no variable Snow"):
        net.joint(["Snow"])


def test_gzip_is_read_and_a_broken_table_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.bif.gz"
    path.write_bytes(gzip.compress(SPRINKLER.replace("(on, no) 0.8, 0.1, 0.1;", "").encode()))
    with pytest.raises(ValueError, match="table of Grass is incomplete"):
        read_bif(path)


def test_random_networks_against_the_product_of_all_tables(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(5):
        names, text, tables = "ABCDE", "", []
        for i, name in enumerate(names):
            parents = [p for p in names[:i] if rng.random() < 0.6]
            table = rng.dirichlet(np.ones(2), size=[2] * len(parents))
            tables.append((parents, table))
            text += f"variable {name} {{ type discrete [ 2 ] {{ s0, s1 }}; }}\n"
            rows = "".join(f"({', '.join(f's{k}' for k in index)}) {', '.join(map(str, table[index]))};" for index in np.ndindex(*[2] * len(parents)))
            body = rows if parents else f"table {', '.join(map(str, table))};"
            text += f"probability ( {name}{' | ' + ', '.join(parents) if parents else ''} ) {{ {body} }}\n"
        path = tmp_path / f"{number}.bif"
        path.write_text(text)
        full = np.ones([2] * 5)
        for state in np.ndindex(*full.shape):
            for i, (parents, table) in enumerate(tables):
                full[state] *= table[tuple(state[names.index(p)] for p in parents)][state[i]]
        np.testing.assert_allclose(read_bif(path).joint(["D", "B"]), full.sum(axis=(0, 2, 4)).T, atol=1e-12)
        np.testing.assert_allclose(read_bif(path).joint(["A"], {"E": "s1"}), full[..., 1].sum(axis=(1, 2, 3)), atol=1e-12)


ASK = """
import sys
from pathlib import Path
from framework.worlds.bayes_net import read_bif
net = read_bif(Path(sys.argv[1]))
print([net.joint(["Disease", name]).tolist() for name in ("LowerBodyO2", "RUQO2", "CO2Report", "XrayReport", "GruntingReport", "LVHreport", "Age")])
"""


@pytest.mark.slow
def test_every_process_comes_to_the_same_digits() -> None:
    command = [sys.executable, "-c", ASK, str(package_file("pgmpy", "utils/example_models/child.bif.gz", extra="healthcare"))]
    answers = [subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True) for seed in "0123"]
    told = {done.stdout for done in answers}
    assert len(told) == 1 and "[[" in told.pop(), "no order may hang on how Python hashes words"
