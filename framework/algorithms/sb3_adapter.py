"""Text worlds and our networks in the shapes that Stable-Baselines3 knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import gymnasium
import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor, nn
from torch.distributions import Categorical

from framework.errors import TrainingError
from framework.interfaces import World
from framework.types import Bools, Ints, Reply
from framework.worlds.rewarded import announce


class Encoder(Protocol):
    """What a world asks of a policy: see `NetworkPolicy`."""

    space: gymnasium.spaces.Box

    def encode(self, texts: Sequence[str], masks: Bools) -> Ints:
        """Encoded observations, `[B, ...]`."""


class EncodedWorld(gymnasium.Wrapper):  # type: ignore[type-arg]
    """A world whose observations are what the policy's network reads."""

    def __init__(self, world: gymnasium.Env[str, int], policy: Encoder) -> None:
        super().__init__(world)
        self.observation_space, self._policy = policy.space, policy

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """See `gymnasium.Env`; the information says whether the episode is `explored`, if it is."""
        text, info = self.env.reset(seed=seed, options=options)
        return self._encode(text, info), {"explored": True} if info.get("explored") else {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env`; the information holds the costs of the act, if it has any."""
        text, reward, terminated, truncated, info = self.env.step(int(action))
        if not math.isfinite(reward):
            act = self.unwrapped.acts[int(action)]  # type: ignore[attr-defined]
            raise TrainingError(f"the act {act!r} was given a reward of {reward}; mend the world's numbers: experiment=check_domain finds where")
        costs = {name: float(cost) for name, cost in info["costs"].items() if cost}
        return self._encode(text, info), float(reward), terminated, truncated, {"costs": costs} if costs else {}

    def current(self) -> np.ndarray:
        """The observation of the present state, after `set_state`."""
        world = self.unwrapped
        assert isinstance(world, World)
        return self._policy.encode([str(world.render())], world.action_mask()[None])[0]

    def _encode(self, text: str, info: dict[str, Any]) -> np.ndarray:
        return self._policy.encode([text], info["action_mask"][None])[0]


class Worlds(DummyVecEnv):
    """Worlds stepped together; a reward that is not their own hears beforehand what it will be asked."""

    def step_async(self, actions: np.ndarray) -> None:
        """See `VecEnv`."""
        announce([cast(World, env.unwrapped) for env in self.envs], [Reply(act) for act in actions.tolist()])
        super().step_async(actions)


class NetworkActorCritic(ActorCriticPolicy):
    """The policy's network as SB3's actor and critic."""

    def __init__(self, *args: Any, network: Callable[[], nn.Module], **kwargs: Any) -> None:
        self._network = network
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        self.network = self._network()
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = self.optimizer_class(learning, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def set_training_mode(self, mode: bool) -> None:
        """Stays in evaluation mode: dropout between a rollout and its updates would look like a change of policy."""

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Acts, values and log-probabilities."""
        scores, values = self.network(obs)
        chosen = Categorical(logits=scores)
        actions = scores.argmax(dim=1) if deterministic else chosen.sample()
        return actions, values, chosen.log_prob(actions)

    def evaluate_actions(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Values, log-probabilities and entropy."""
        scores, values = self.network(obs)
        chosen = Categorical(logits=scores)
        return values, chosen.log_prob(actions), chosen.entropy()

    def get_distribution(self, obs: Tensor) -> Any:  # type: ignore[override]
        """SB3's own distribution, for TRPO."""
        return self.action_dist.proba_distribution(action_logits=self.network(obs)[0])

    def predict_values(self, obs: Tensor) -> Tensor:  # type: ignore[override]
        """Values."""
        values: Tensor = self.network(obs)[1]
        return values


class _ActionValues(BasePolicy):
    """The scores of a network as SB3's action values."""

    def __init__(self, network: nn.Module, *args: Any) -> None:
        super().__init__(*args)
        self.network = network

    def forward(self, obs: Tensor) -> Tensor:
        """Scores."""
        scores: Tensor = self.network(obs)[0]
        return scores

    def _predict(self, observation: Tensor, deterministic: bool = True) -> Tensor:  # type: ignore[override]
        return self(observation).argmax(dim=1)


class NetworkDeepQ(DQNPolicy):
    """The policy's network, and a twin of it as target."""

    def __init__(self, *args: Any, network: Callable[[], nn.Module], **kwargs: Any) -> None:
        self._network = network
        super().__init__(*args, **kwargs)

    def make_q_net(self) -> _ActionValues:  # type: ignore[override]
        """The network itself, then its target."""
        network: Any = self._network() if not hasattr(self, "q_net") else cast(Any, self.q_net).network.twin()
        return _ActionValues(network, self.observation_space, self.action_space).to(self.device)
