"""Interrupting SB3 between two rollouts and going on exactly from there, in plain data.

SB3's own `save` keeps pickles and leaves out the worlds, the random generators and the reward statistics, so a run that it
resumes is another run. Here all of them are kept, as safetensors and JSON.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from framework.algorithms.optimizer_state import optimizer_tensors, restore_optimizer

_TENSORS, _PLAIN = "training.safetensors", "training.json"


def save(model: BaseAlgorithm, directory: Path) -> None:
    """Writes optimizer, counters, reward statistics, worlds and random generators."""
    venv = _normaliser(model)
    tensors = optimizer_tensors(model.policy.optimizer) | {"rng.torch": torch.get_rng_state(), "returns": torch.as_tensor(venv.returns)}
    tensors["starts"] = torch.as_tensor(np.asarray(getattr(model, "_last_episode_starts", np.zeros(0))))
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, directory / _TENSORS)
    rms = venv.ret_rms
    plain = {
        "num_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "episodes": list(model.ep_info_buffer or []),
        "reward": [float(rms.mean), float(rms.var), float(rms.count)],
        "python": random.getstate(),
        "numpy": _numpy_state(),
        "worlds": [_world_state(world) for world in venv.unwrapped.envs],  # type: ignore[attr-defined]
    }
    (directory / _PLAIN).write_text(json.dumps(plain), encoding="utf-8")


def load(model: BaseAlgorithm, directory: Path) -> None:
    """Puts a freshly made model where `save` left one; the policy's weights are loaded apart."""
    venv = _normaliser(model)
    tensors = load_file(directory / _TENSORS)
    plain = json.loads((directory / _PLAIN).read_text(encoding="utf-8"))
    restore_optimizer(model.policy.optimizer, tensors)
    model.num_timesteps, model._n_updates = plain["num_timesteps"], plain["n_updates"]
    venv.reset()  # makes what the worlds' states are then put into
    model._last_obs = np.stack([_restore_world(world, state) for world, state in zip(venv.unwrapped.envs, plain["worlds"], strict=True)])  # type: ignore[attr-defined]
    model._last_original_obs = model._last_obs  # what off-policy algorithms store
    model._last_episode_starts = tensors["starts"].numpy().astype(bool)
    venv.returns = tensors["returns"].numpy().copy()
    mean, variance, count = plain["reward"]
    venv.ret_rms.mean, venv.ret_rms.var, venv.ret_rms.count = np.array(mean), np.array(variance), count
    model._setup_learn(0, reset_num_timesteps=False)
    assert model.ep_info_buffer is not None
    model.ep_info_buffer.extend(plain["episodes"])
    version, inner, gauss = plain["python"]
    random.setstate((version, tuple(inner), gauss))
    np.random.set_state((plain["numpy"][0], np.array(plain["numpy"][1], np.uint32), *plain["numpy"][2:]))
    torch.set_rng_state(tensors["rng.torch"])


def _normaliser(model: BaseAlgorithm) -> VecNormalize:
    venv = model.get_vec_normalize_env()
    assert venv is not None
    return venv


def _numpy_state() -> list[Any]:
    name, keys, *rest = np.random.get_state()
    return [name, np.asarray(keys).tolist(), *rest]


def _world_state(monitor: Any) -> dict[str, Any]:
    """A world under its wrappers, from the outside in: monitor, encoder, perhaps exploring starts, world."""
    inner = monitor.env.env
    state = {"world": monitor.unwrapped.get_state(), "rewards": [float(reward) for reward in monitor.rewards], "needs_reset": monitor.needs_reset}
    return state | ({"starts": inner.rng.bit_generator.state} if hasattr(inner, "rng") else {})


def _restore_world(monitor: Any, state: dict[str, Any]) -> np.ndarray:
    inner = monitor.env.env
    monitor.unwrapped.set_state(state["world"])
    monitor.rewards, monitor.needs_reset = list(state["rewards"]), state["needs_reset"]
    if "starts" in state:
        inner.rng.bit_generator.state = state["starts"]
    return np.asarray(monitor.env.current())
