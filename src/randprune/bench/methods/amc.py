"""AMC: an agent walks over the groups and learns how much of each may stay.

Method. An episode passes once over the groups. The state of a group is ten numbers: its place, its
width, what cutting it alone saves, how many tensors make, read and pass its channels, each scaled
to [0, 1]; what was saved so far, what groups to come could save, the last action, and the most that
may stay. The action is the share that stays, clipped from
above such that the rest still fits the budget at its least. The network of the episode is repaired,
and its quality on the search images is the reward of every step. Actor and critic are trained by
DDPG (Lillicrap et al., ICLR 2016): two layers of 300, Adam at 1e-4 and 1e-3, targets that follow at
0.01, discount 1, batches of 64, rewards minus their moving average. The first episodes act
uniformly, later ones by a normal about the actor's action, whose deviation shrinks each time.
The best configuration of all episodes is proposed.

He et al., "AMC: AutoML for model compression and acceleration on mobile devices", ECCV 2018.
Differs from the paper: groups of coupled channels instead of layers, the benchmark's quality
instead of accuracy, fewer episodes by default, and what ends below the budget is stepped onto it.

Known shortcomings. Hundreds of episodes; what it finds depends on the seed more than a search does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from randprune.bench.methods.base import Task, check_count, methods
from randprune.bench.methods.on_budget import on_budget
from randprune.cost import FloatArray
from randprune.errors import InfeasibleBudgetError
from randprune.space import IntArray, Selection
from randprune.strategies.feasible import WidthGrid, cheapest, require_reachable

_STATE = 10
_HIDDEN = 300
_BATCH = 64
_FOLLOW = 0.01
_SPREAD, _SHRINK = 0.5, 0.95
_AVERAGE = 0.5

Step = tuple[FloatArray, float, FloatArray, bool]
"""State, action, next state, and whether the episode ends there."""


@methods.register("amc")
@dataclass(frozen=True)
class AMC:
    """Widths by reinforcement learning.

    Args:
        episodes: how many configurations are evaluated.
        warmup: how many of them act at random.
    """

    episodes: int = 100
    warmup: int = 25
    uses_criterion: ClassVar[bool] = True
    needs_trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("amc", "episodes", self.episodes)
        check_count("amc", "warmup", self.warmup, 0)

    @property
    def words(self) -> str:
        """What it does."""
        return (
            f"An agent that learns by {self.episodes} episodes (DDPG) how much of each layer may "
            "stay; the best configuration that it met is proposed."
        )

    def propose(self, task: Task) -> Selection:
        """The best configuration of all episodes; of equally good ones the first."""
        space, budget, limits = task.space, task.budget, task.limits
        require_reachable(space, budget, limits.min_keep, limits.round_to)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(task.rng.integers(2**31)))
            return task.select(self._walks(_Walk(task)))

    def _walks(self, walk: _Walk) -> IntArray:
        task, agent = walk.task, _Agent(walk.task.rng, len(walk.task.space))
        best: tuple[float, IntArray] | None = None
        for episode in range(self.episodes):
            late = episode - self.warmup
            spread = None if late < 0 else _SPREAD * _SHRINK**late
            steps, wanted = walk.episode(agent, spread)
            try:
                widths = on_budget(task.space, task.budget, task.limits, wanted, "amc")
            except InfeasibleBudgetError:
                if episode == self.episodes - 1 and best is None:
                    raise
                continue
            reward = task.evaluate(widths)
            if best is None or reward > best[0]:
                best = reward, widths
            if np.isfinite(reward):
                agent.remember(steps, reward)
            if late >= 0:
                for _ in steps:
                    agent.learn()
        assert best is not None
        return best[1]


class _Walk:
    """The groups as an agent meets them."""

    def __init__(self, task: Task) -> None:
        self.task = task
        space, limits = task.space, task.limits
        self.grid = WidthGrid.of(space, limits.min_keep, limits.round_to)
        self.cost = space.cost(task.budget.metric)
        self.aim = task.budget.ratio * self.cost.dense
        self.least = cheapest(self.cost, self.grid)
        widths = space.widths.astype(np.float64)
        count = len(space)
        # What a group's cost is beside all others at full width, and its slots by role.
        alone = np.repeat(space.widths[None], count, axis=0)
        alone[np.arange(count), np.arange(count)] = self.least
        self.share = 1.0 - np.asarray(self.cost(alone), dtype=np.float64) / self.cost.dense
        roles = [
            [len(group.with_role(role)) for role in ("out", "in", "pass")] for group in space.groups
        ]
        fixed = np.stack([np.arange(count), widths, self.share, *np.array(roles).T], axis=1)
        span = fixed.max(axis=0) - fixed.min(axis=0)
        self.fixed = (fixed - fixed.min(axis=0)) / np.where(span > 0, span, 1.0)

    def episode(self, agent: _Agent, spread: float | None) -> tuple[list[Step], FloatArray]:
        """One pass over the groups: its steps, and the widths that it wants."""
        full = self.task.space.widths
        now, last = full.copy(), 1.0
        states: list[FloatArray] = []
        actions: list[float] = []
        for group in range(len(full)):
            rest = now.copy()
            rest[group + 1 :] = self.least[group + 1 :]
            saved = 1.0 - float(self.cost(now)) / self.cost.dense
            ahead = float(self.share[group + 1 :].sum())
            levels = self.grid.levels(group).astype(np.int64)
            rows = np.repeat(rest[None], len(levels), axis=0)
            rows[:, group] = levels
            fits = levels[np.asarray(self.cost(rows)) <= self.aim]
            most = int(fits.max()) if len(fits) else int(levels.min())
            state = np.concatenate(
                [self.fixed[group], [saved, ahead, last, most / float(full[group])]]
            )
            wanted = agent.act(state, spread)
            # The nearest allowed width, which is at most `most`, an allowed one itself.
            now[group] = levels[np.abs(levels - min(wanted * full[group], most)).argmin()]
            last = float(now[group] / full[group])
            states.append(state)
            actions.append(last)
        ends = [*states[1:], states[-1]]
        steps = [
            (state, action, following, number == len(states) - 1)
            for number, (state, action, following) in enumerate(
                zip(states, actions, ends, strict=True)
            )
        ]
        return steps, now.astype(np.float64)


class _Agent:
    """DDPG on states of ten numbers and actions of one."""

    def __init__(self, rng: np.random.Generator, groups: int) -> None:
        self.rng = rng
        self.memory: deque[tuple[Step, float]] = deque(maxlen=100 * groups)
        self.average = 0.0
        self.rewards = 0
        self.actor, self.late_actor = _net(_STATE, nn.Sigmoid()), _net(_STATE, nn.Sigmoid())
        self.critic, self.late_critic = _net(_STATE + 1), _net(_STATE + 1)
        self.late_actor.load_state_dict(self.actor.state_dict())
        self.late_critic.load_state_dict(self.critic.state_dict())
        self.of_actor = torch.optim.Adam(self.actor.parameters(), lr=1e-4)
        self.of_critic = torch.optim.Adam(self.critic.parameters(), lr=1e-3)

    def act(self, state: FloatArray, spread: float | None) -> float:
        """A share that stays; at random where there is no spread yet."""
        if spread is None:
            return float(self.rng.random())
        with torch.no_grad():
            mean = float(self.actor(_row(state)))
        return float(np.clip(self.rng.normal(mean, spread), 0.0, 1.0))

    def remember(self, steps: list[Step], reward: float) -> None:
        """An episode, with the same reward for each of its steps."""
        self.average = _AVERAGE * self.average + (1 - _AVERAGE) * reward if self.rewards else reward
        self.rewards += 1
        self.memory.extend((step, reward) for step in steps)

    def learn(self) -> None:
        """One step of critic and actor."""
        if not self.memory:
            return
        size = min(_BATCH, len(self.memory))
        picked = [self.memory[i] for i in self.rng.integers(len(self.memory), size=size).tolist()]
        state = torch.cat([_row(step[0]) for step, _ in picked])
        action = torch.tensor([[step[1]] for step, _ in picked], dtype=torch.float32)
        following = torch.cat([_row(step[2]) for step, _ in picked])
        goes_on = torch.tensor([[float(not step[3])] for step, _ in picked])
        reward = torch.tensor([[value - self.average] for _, value in picked], dtype=torch.float32)
        with torch.no_grad():
            ahead = self.late_critic(torch.cat([following, self.late_actor(following)], dim=1))
            target = reward + goes_on * ahead
        loss = F.mse_loss(self.critic(torch.cat([state, action], dim=1)), target)
        _descend(self.of_critic, loss)
        worth = self.critic(torch.cat([state, self.actor(state)], dim=1))
        _descend(self.of_actor, -worth.mean())
        for late, now in ((self.late_actor, self.actor), (self.late_critic, self.critic)):
            with torch.no_grad():
                for old, new in zip(late.parameters(), now.parameters(), strict=True):
                    old.lerp_(new, _FOLLOW)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()


def _net(inputs: int, *last: nn.Module) -> nn.Sequential:
    hidden = nn.Linear(inputs, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(_HIDDEN, 1), *last)


def _row(state: FloatArray) -> Tensor:
    return torch.from_numpy(state).float()[None]
