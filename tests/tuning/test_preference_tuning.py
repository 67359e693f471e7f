"""Direct preference methods: a step's loss and gradient are TRL's, however it is cut; the reference is read once; what is preferred gets likelier."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

sys.path.append(str(Path(__file__).resolve().parents[1] / "numerics"))
from test_losses import bare

from framework.algorithms.dpo import DPO
from framework.algorithms.kto import KTO
from framework.algorithms.orpo import ORPO
from framework.algorithms.preference_descent import PreferenceDescent
from framework.errors import TrainingError
from framework.interfaces import Learning
from framework.lm.adapters import Full, Lora
from framework.lm.causal import CausalLM
from framework.types import Pair, Tokens

CPU = torch.device("cpu")
COMMON = {"n_epochs": 1, "batch_size": 4, "learning_rate": 1e-2, "warmup": 0.0, "weight_decay": 0.0, "max_grad_norm": 1.0, "beta": 0.3}
LOSSES = ("sigmoid", "ipo", "robust", "hinge")


def dpo(loss: str = "sigmoid", sft_coef: float = 0.0, **changed: Any) -> DPO:
    return DPO(**{**COMMON, "loss": loss, "flipped": 0.1, "sft_coef": sft_coef, **changed})


def kto(**changed: Any) -> KTO:
    return KTO(**{**COMMON, "desirable_weight": 1.3, "undesirable_weight": 0.8, **changed})


def orpo(**changed: Any) -> ORPO:
    return ORPO(**{**COMMON, **changed})


ALL = {"dpo": dpo, "kto": kto, "orpo": orpo}


def placed(path: Path, adapter: Full | Lora | None = None) -> CausalLM:
    lm = CausalLM(str(path), "float32", adapter=adapter or Full())
    lm.place(CPU)
    return lm


def moved(lm: CausalLM) -> CausalLM:
    """The same, no longer the reference."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return lm


def pairs(prompts: tuple[int, ...] = (5, 9, 2, 30), chosen: tuple[int, ...] = (4, 1, 7, 20), rejected: tuple[int, ...] = (6, 3, 2, 5)) -> list[Pair]:
    rng = np.random.default_rng(0)
    found = []
    for before, *after in zip(prompts, chosen, rejected, strict=True):
        prompt = rng.integers(1, 200, before)
        found.append(Pair(*(Tokens(np.concatenate([prompt, rng.integers(1, 200, n)]), np.repeat([0.0, 1.0], [before, n])) for n in after)))
    return found


def step(algorithm: PreferenceDescent, lm: CausalLM, prepared: list[Pair] | Any) -> tuple[float, list[Tensor]]:
    """The loss of a batch and its gradient."""
    loss = 0.0
    for _, losses in algorithm.compare(lm, prepared):
        (losses.sum() / len(prepared)).backward()
        loss += losses.sum().item() / len(prepared)
    return loss, gradients(lm)


def gradients(lm: CausalLM) -> list[Tensor]:
    found = [parameter.grad.clone() for parameter in lm.parameters()]  # type: ignore[union-attr]
    lm.model.zero_grad()
    return found


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def as_theirs(algorithm: PreferenceDescent, lm: CausalLM, prepared: list[Pair] | Any, expected: Tensor) -> None:
    """Our loss of a batch, and its gradient, are those of a loss that was computed on the same model."""
    expected.backward()  # type: ignore[no-untyped-call]
    theirs = gradients(lm)
    found, ours = step(algorithm, lm, prepared)
    assert found == pytest.approx(expected.item(), rel=1e-4)
    same(ours, theirs)


def padded(examples: list[Tokens]) -> dict[str, Tensor]:
    """As TRL lays out a batch: every prompt again for every completion, all as long as the longest."""
    ids, masks = ([torch.as_tensor(getattr(x, name)) for x in examples] for name in ("ids", "weights"))
    seen = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return {"input_ids": pad_sequence(ids, batch_first=True), "attention_mask": seen, "completion_mask": pad_sequence(masks, batch_first=True).long()}


def trl_model(lm: CausalLM) -> Any:
    """The network as TRL's patched models answer."""

    def read(input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **_: Any) -> SimpleNamespace:
        likely = lm.model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1].log_softmax(-1)
        found = likely.gather(-1, labels[:, 1:, None].clamp(min=0)).squeeze(-1) * (labels[:, 1:] >= 0)
        nothing = torch.zeros_like(found)
        return SimpleNamespace(log_probs=found, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())

    return read


SHARED = {"aux_loss_enabled": False, "precompute_ref_logps": True, "_total_train_tokens": 0, "_tp_size": 1, "beta": 0.3}


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_of_dpo_is_that_of_trl(micro: Path, loss: str) -> None:
    trl = pytest.importorskip("trl")
    lm, algorithm = placed(micro), dpo(loss)
    prepared = algorithm.prepare(lm, pairs())
    moved(lm)
    trainer = bare(
        trl.DPOTrainer, loss_types=[loss], loss_weights=[1.0], label_smoothing=0.1, f_divergence_type="reverse_kl", ld_alpha=None, use_weighting=False,
        args=SimpleNamespace(), **SHARED,
    )  # fmt: skip
    known = {f"ref_{side}_logps": torch.tensor([pair.reference[i] for pair in prepared]) for i, side in enumerate(("chosen", "rejected"))}
    batch = padded([pair.chosen for pair in prepared] + [pair.rejected for pair in prepared]) | known
    expected = trainer._compute_loss(trl_model(lm), batch, return_outputs=False)
    as_theirs(algorithm, lm, prepared, expected)


@pytest.mark.slow
def test_a_step_of_kto_is_that_of_trl(micro: Path) -> None:
    trl = pytest.importorskip("trl")
    lm, algorithm = placed(micro), kto()
    prepared = algorithm.prepare(lm, pairs())
    moved(lm)
    trainer = bare(trl.KTOTrainer, loss_type="kto", calculate_KL=True, desirable_weight=1.3, undesirable_weight=0.8, **SHARED)
    others = [pair.other for pair in prepared if pair.other is not None]

    def sides(of: list[Pair]) -> tuple[list[Tokens], Tensor]:
        return [x for pair in of for x in (pair.chosen, pair.rejected)], torch.tensor([pair.reference for pair in of]).flatten()

    (own, known), (elsewhere, known_elsewhere) = sides(list(prepared)), sides(others)
    batch = {**padded(own), **{f"KL_{name}": value for name, value in padded(elsewhere).items()}}
    batch |= {"label": torch.tensor([True, False] * 4), "ref_logps": known, "ref_KL_logps": known_elsewhere}
    expected = trainer._compute_loss(trl_model(lm), batch, return_outputs=False)
    as_theirs(algorithm, lm, prepared, expected)


@pytest.mark.slow
def test_a_step_of_orpo_is_that_of_trl_where_theirs_learns_completions_alone(micro: Path) -> None:
    trainer = pytest.importorskip("trl.experimental.orpo").ORPOTrainer
    lm, algorithm = moved(placed(micro)), orpo()
    given = pairs((1, 1, 1), (5, 5, 5), (3, 8, 2))  # their likelihood is over prompts too, and over the tokens of a batch
    batch = {}
    for side in ("chosen", "rejected"):
        found = padded([getattr(pair, side) for pair in given])
        labels = found["input_ids"].masked_fill(found["completion_mask"] == 0, -100)
        batch |= {f"{side}_input_ids": found["input_ids"], f"{side}_attention_mask": found["attention_mask"], f"{side}_labels": labels}
    expected, _ = bare(trainer, beta=0.3, is_encoder_decoder=False, padding_value=0, aux_loss_enabled=False).get_batch_loss_metrics(lm.model, batch)
    as_theirs(algorithm, lm, given, expected)


@pytest.mark.parametrize("name", ALL)
def test_a_batch_cut_into_passes_has_one_gradient(micro: Path, name: str) -> None:
    lm, algorithm = placed(micro), ALL[name]()
    prepared = algorithm.prepare(lm, pairs())
    moved(lm)
    whole, expected = step(algorithm, lm, prepared)
    lm.pass_tokens = 20
    parts, found = step(algorithm, lm, prepared)
    assert parts == pytest.approx(whole, rel=1e-5)
    same(found, expected)
    assert algorithm.judge(lm, prepared).losses.mean() == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(("name", "more"), [("dpo", 1), ("kto", 2), ("orpo", 0)])
def test_the_reference_is_read_once(micro: Path, name: str, more: int) -> None:
    lm, algorithm = placed(micro), ALL[name](n_epochs=3)
    counted = [0]
    lm.model.model.register_forward_hook(lambda *_: counted.__setitem__(0, counted[0] + 1))
    prepared = algorithm.prepare(lm, pairs())
    assert counted[0] == more
    counted[0] = 0
    algorithm.learn(lm, prepared, Learning(lambda *_: True, 0, CPU))
    assert counted[0] == 3 * (2 if name == "kto" else 1)


def test_labels_say_which_and_ties_pull_to_neither_side(micro: Path) -> None:
    lm, algorithm = placed(micro), dpo()
    given = algorithm.prepare(lm, pairs())
    moved(lm)
    turned = [Pair(pair.rejected, pair.chosen, 0.0, pair.reference[::-1]) for pair in given]
    assert algorithm.judge(lm, turned).losses == pytest.approx(algorithm.judge(lm, given).losses, rel=1e-4)
    lm = placed(micro)
    _, found = step(algorithm, lm, [Pair(pair.chosen, pair.rejected, 0.5, pair.reference) for pair in given])
    assert max(float(each.abs().max()) for each in found) < 1e-5


def test_the_likelihood_beside_the_preference(micro: Path) -> None:
    lm = placed(micro)
    prepared = dpo().prepare(lm, pairs())
    plain, both = (dpo(sft_coef=coef).judge(lm, prepared) for coef in (0.0, 0.7))
    assert both.losses == pytest.approx(plain.losses - 0.7 * plain.logprobs[:, 0])


def probe() -> list[Pair]:
    """After any prompt, token 7 rather than token 8."""
    rng = np.random.default_rng(3)
    prompts = [rng.integers(20, 200, rng.integers(2, 12)) for _ in range(24)]
    return [Pair(*(Tokens(np.append(prompt, token), np.append(np.zeros(len(prompt)), 1.0)) for token in (7, 8))) for prompt in prompts]


@pytest.mark.parametrize("adapter", [Full(), Lora(4, 8)], ids=["full", "lora"])
@pytest.mark.parametrize("make", [*(lambda loss=loss, **changed: dpo(loss, **changed) for loss in LOSSES), kto, orpo], ids=[*LOSSES, "kto", "orpo"])
def test_what_is_preferred_gets_likelier_for_unseen_prompts_too(micro: Path, make: Any, adapter: Full | Lora) -> None:
    lm, algorithm = placed(micro, adapter), make(n_epochs=10, batch_size=8, learning_rate=3e-2)
    given = probe()
    train, held_out = (algorithm.prepare(lm, part) for part in (given[:16], given[16:]))
    before, heard = algorithm.judge(lm, held_out), []
    algorithm.learn(lm, train, Learning(lambda _, metrics: heard.append(metrics) or True, 0, CPU))
    after = algorithm.judge(lm, held_out)
    assert (np.diff(-after.logprobs) > np.diff(-before.logprobs) + 0.5).all() and after.losses.mean() < before.losses.mean()
    assert len(heard) == 20 and heard[-1]["train/reward_accuracy"] == 1 and heard[-1]["train/reward_margin"] > heard[0]["train/reward_margin"]


@pytest.mark.parametrize("name", ALL)
def test_gone_on_with_it_is_the_uninterrupted_run_to_the_bit(micro: Path, tmp_path: Path, name: str) -> None:
    prepared = ALL[name]().prepare(placed(micro), pairs())

    def learnt(lm: CausalLM, algorithm: PreferenceDescent, until: int | None = None, resume: Path | None = None) -> dict[str, Tensor]:
        def progress(done: int, _: Mapping[str, float]) -> bool:
            return done != until

        algorithm.learn(lm, prepared, Learning(progress, 5, CPU, resume))
        return {name: value.clone() for name, value in lm.model.state_dict().items()}

    whole = learnt(placed(micro), ALL[name](n_epochs=3, batch_size=3))
    lm, algorithm = placed(micro), ALL[name](n_epochs=3, batch_size=3)
    learnt(lm, algorithm, until=3)
    lm.save(tmp_path)
    algorithm.save(tmp_path)
    again = placed(micro)
    again.load(tmp_path)
    resumed = learnt(again, ALL[name](n_epochs=3, batch_size=3), resume=tmp_path)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_numbers_that_are_none_stop_the_run(micro: Path) -> None:
    lm, algorithm = placed(micro), dpo(n_epochs=5, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"Try a lower algo\.learning_rate"):
        algorithm.learn(lm, algorithm.prepare(lm, pairs()), Learning(lambda *_: True, 0, CPU))


def test_a_frozen_model_learns_nothing_and_says_so(micro: Path) -> None:
    lm = CausalLM(str(micro), "float32")
    lm.place(CPU)
    with pytest.raises(TrainingError, match="adapter=lora or adapter=full"):
        dpo().learn(lm, dpo().prepare(lm, pairs()), Learning(lambda *_: True, 0, CPU))
