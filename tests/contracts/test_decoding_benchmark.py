"""The benchmark of decoding runs; what it measures is nobody's promise here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.benchmarks import decoding


def test_decoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    decoding.main(["--rounds", "1", "--prompts", "2", "--samples", "4", "--prompt", "3", "--new", "3", "--out", str(out)])
    found = json.loads(out.read_text())
    assert set(found) == {"machine", "dtype", "seconds"}
    assert set(found["seconds"]) == set(decoding.CASES)
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in found["seconds"].values())
    assert "times transformers" in capsys.readouterr().out


def test_numbers_below_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        decoding.main(["--rounds", "0"])
    assert "at least 1" in capsys.readouterr().err
