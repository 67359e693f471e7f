"""What an agent in MiniGrid sees, in words: the form is BabyAI-Text's (Carta et al., 2023), the wordings are ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT, STATE_TO_IDX

from framework.types import Bools
from framework.worlds.wordings import Bank

_THINGS = ("door", "key", "ball", "box", "goal", "lava")
_STATES = {number: name for name, number in STATE_TO_IDX.items()}


class Describer:
    """Task, what is carried, the nearest walls, and every thing in view, nearest first; each place on the grid has its own wording.

    Args:
        bank: see `wordings/train.yaml`.
    """

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    def __call__(self, env: Any, observation: Any) -> list[str]:
        """Lines that tell an observation: its `image` `[view, view, 3]` is as the agent sees it, who stands in the middle of the last row."""
        view = np.asarray(observation["image"])
        middle, last = view.shape[0] // 2, view.shape[1] - 1
        lines = [self._say("task", "task", 0).format(mission=observation["mission"])]
        if thing := _thing(view[middle, last]):  # where the agent stands it sees what it carries
            lines.append(self._say("held", "thing", int(view[middle, last, 1])).format(thing=thing))
        lines += [self._seen("wall", "wall", *at) for at in _walls(view, middle, last)]
        cells = [(last - row, column - middle) for column, row in np.ndindex(view.shape[:2]) if (column, row) != (middle, last)]
        for ahead, side in sorted(cells, key=lambda at: (at[0] + abs(at[1]), at)):
            if thing := _thing(view[middle + side, last - ahead]):
                lines.append(self._seen("thing", thing, ahead, side))
        return lines

    def _seen(self, kind: str, thing: str, ahead: int, side: int) -> str:
        choice = 3 * ahead + 5 * side
        places = [("ahead", ahead)] * (ahead > 0) + [("left" if side < 0 else "right", abs(side))] * (side != 0)
        where = " and ".join(self._say("place", place, choice).format(steps=f"{steps} {self._unit(steps)}") for place, steps in places)
        return self._say("seen", kind, choice).format(thing=thing, where=where)

    def _unit(self, steps: int) -> str:
        return self._say("unit", "one" if steps == 1 else "many", 0)

    def _say(self, topic: str, value: str, choice: int) -> str:
        wordings = self.bank[topic][value]
        return wordings[choice % len(wordings)]


def allowed(env: Any) -> Bools:
    """Acts of a MiniGrid environment that can do something, `[7]`; `done` only outside BabyAI, whose missions end by themselves."""
    front, carries = env.grid.get(*env.front_pos), env.carrying is not None
    free = front is None or front.can_overlap()
    lifts = front is not None and front.can_pickup() and not carries
    turns = front is not None and front.type in ("door", "box")
    return np.array([True, True, free, lifts, carries and front is None, turns, not hasattr(env, "instrs")])


def _thing(cell: Any) -> str:
    """A thing in a cell `[3]` of type, colour and state; nothing for what is no thing."""
    kind, colour, state = (int(number) for number in cell)
    name = IDX_TO_OBJECT[kind]
    if name not in _THINGS:
        return ""
    return " ".join([*([_STATES[state]] if name == "door" else []), *([IDX_TO_COLOR[colour]] if name not in ("goal", "lava") else []), name])


def _walls(view: Any, middle: int, last: int) -> Iterator[tuple[int, int]]:
    """The first wall in view ahead, to the left and to the right of where the agent stands, as steps ahead and to the right."""
    for ahead, side in ((1, 0), (0, -1), (0, 1)):
        for steps in range(1, last + 1 if ahead else middle + 1):
            if IDX_TO_OBJECT[int(view[middle + side * steps, last - ahead * steps, 0])] == "wall":
                yield ahead * steps, side * steps
                break
