"""What can be done in the course of a `learn`: evaluate, keep the best policy, stop early, save.

A callback is any object with the four methods of `Callback`. It may change nothing of the learning but end it, with
`agent.stop()`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium

from iquitos_rl.agents.arguments import folder_of, whole
from iquitos_rl.agents.evaluating import Episodes, run_episodes
from iquitos_rl.agents.progress import Progress
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.errors import UserError
from iquitos_rl.machine.optional import optional
from iquitos_rl.writers.registry import Writer

if TYPE_CHECKING:
    from iquitos_rl.agents.agent import Agent

METHODS = "on_step", "on_log", "on_evaluation", "on_end"


class Callback:
    """Does nothing; a subclass overrides what it needs. Each method may call `agent.stop()`."""

    def on_step(self, agent: Agent, steps: int) -> None:
        """After every step of the environments; `steps` are the transitions so far."""

    def on_log(self, agent: Agent, progress: Progress) -> None:
        """With every report."""

    def on_evaluation(self, agent: Agent, steps: int, episodes: Episodes) -> None:
        """When a callback has evaluated the policy."""

    def on_end(self, agent: Agent) -> None:
        """At the end of `learn`, also of one that was stopped."""


class Regularly(Callback):
    """Does something every so many transitions, and at the end; a subclass has `act`."""

    def __init__(self, every: int) -> None:
        self.every = whole("every", every, 1)
        self._done: int | None = None
        self._last = -1

    def act(self, agent: Agent, steps: int) -> None:
        """What is done."""
        raise NotImplementedError

    def on_step(self, agent: Agent, steps: int) -> None:
        if self._done is None:
            self._done = (steps - 1) // self.every
        if steps // self.every > self._done:
            self._done = steps // self.every
            self._act(agent, steps)

    def on_end(self, agent: Agent) -> None:
        if self._last != agent.steps:
            self._act(agent, agent.steps)

    def _act(self, agent: Agent, steps: int) -> None:
        self._last = steps
        self.act(agent, steps)


class Evaluate(Regularly):
    """Evaluates the policy every so many transitions, in an environment of its own, and tells the other callbacks.

    Args:
        env: an environment as agents take it; not the one that is trained on.
        every: transitions between two evaluations.
        episodes: of each evaluation. All evaluations have the same seeds.
        best: a folder for the policy with the highest mean return so far.
        seed: of the environment's first episode.
    """

    def __init__(
        self, env: Any, every: int = 10_000, episodes: int = 10, best: str | Path | None = None, seed: int = 10_000
    ) -> None:
        super().__init__(every)
        self.env, self.episodes = env, whole("episodes", episodes, 1)
        self.folder = None if best is None else folder_of(best)
        self.seed = whole("seed", seed)
        self.best = -inf
        """The highest mean return so far."""
        self.results: list[tuple[int, Episodes]] = []
        """Transitions, and the episodes evaluated then."""

    def act(self, agent: Agent, steps: int) -> None:
        """Evaluate, and keep the policy if it is the best."""
        self.env = as_vector(self.env, agent.device)  # once: a list of functions makes environments
        found = run_episodes(agent, self.env, self.episodes, seed=self.seed)
        self.results.append((steps, found))
        if found.mean > self.best:
            self.best = found.mean
            if self.folder is not None:
                agent.save_policy(self.folder)
        for callback in agent.callbacks:
            callback.on_evaluation(agent, steps, found)


class Video(Regularly):
    """Records the policy every so many transitions with gymnasium's `RecordVideo`, in a folder
    for each recording: `step-10000/rl-video-episode-0.mp4`.

    Args:
        env: a gymnasium environment with `render_mode="rgb_array"`; not the one that is trained on.
        folder: for the videos.
        every: transitions between two recordings.
        episodes: of each recording. All recordings have the same seeds.
        seed: of the first episode.

    Raises:
        UserError: the environment does not render, or moviepy, which gymnasium needs, is not installed.
    """

    def __init__(
        self, env: Any, folder: str | Path, every: int = 10_000, episodes: int = 1, seed: int = 10_000
    ) -> None:
        super().__init__(every)
        self.env, self.folder, self.episodes = env, folder_of(folder), whole("episodes", episodes, 1)
        self.seed = whole("seed", seed)
        optional("moviepy", "video")
        if getattr(env, "render_mode", None) != "rgb_array":
            raise UserError('a video needs one environment with render_mode="rgb_array"')

    def act(self, agent: Agent, steps: int) -> None:
        """Record."""
        wrappers: Any = gymnasium.wrappers  # which do not all say what they export
        recorder = wrappers.RecordVideo(
            self.env,
            str(self.folder / f"step-{steps}"),
            episode_trigger=lambda episode: episode < self.episodes,
            disable_logger=True,
        )
        run_episodes(agent, recorder, self.episodes, seed=self.seed)


class StopEarly(Callback):
    """Ends learning by what `Evaluate` finds.

    Args:
        at_return: as soon as the mean return is so high.
        patience: after so many evaluations in a row without a new highest mean return.
    """

    def __init__(self, at_return: float = inf, patience: int | None = None) -> None:
        if at_return == inf and patience is None:
            raise UserError("StopEarly needs at_return or patience")
        self.at_return, self.patience = float(at_return), None if patience is None else whole("patience", patience, 1)
        self._best, self._without = -inf, 0

    def on_evaluation(self, agent: Agent, steps: int, episodes: Episodes) -> None:
        self._without = 0 if episodes.mean > self._best else self._without + 1
        self._best = max(self._best, episodes.mean)
        if episodes.mean >= self.at_return or (self.patience is not None and self._without >= self.patience):
            agent.stop()


class Write(Callback):
    """Gives every report and evaluation to a writer: `iquitos_rl.writers.wandb.WandB`, `mlflow.MLflow`,
    `trackio.Trackio`, or `iquitos_rl.report.metrics.MetricsWriter`, which writes CSV and TensorBoard. The writer is the
    caller's to close."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def on_log(self, agent: Agent, progress: Progress) -> None:
        self.writer.write(progress.steps, {**progress.metrics, "updates": float(progress.updates)})

    def on_evaluation(self, agent: Agent, steps: int, episodes: Episodes) -> None:
        length = sum(episodes.lengths) / len(episodes.lengths)
        metrics = {"return": episodes.mean, "return_std": episodes.std, "length": length}
        self.writer.write(steps, {f"evaluation/{name}": value for name, value in metrics.items()})


class SaveEvery(Callback):
    """Saves the agent with every report that is at least so many transitions after the last save, into folders named
    after the transitions; `load` goes on from any of them.

    Args:
        folder: holds a folder for each save.
        every: transitions between two saves.
        buffer: with the stored transitions, see `Agent.save`.
        keep: so many of the newest; None keeps all.
    """

    def __init__(self, folder: str | Path, every: int = 10_000, buffer: bool = False, keep: int | None = None) -> None:
        self.folder, self.every, self.buffer = folder_of(folder), whole("every", every, 1), buffer
        self.keep = None if keep is None else whole("keep", keep, 1)
        self.saved: list[Path] = []
        self._last = 0

    def on_log(self, agent: Agent, progress: Progress) -> None:
        if progress.steps - self._last < self.every:
            return
        self._last = progress.steps
        agent.save(self.folder / str(progress.steps), buffer=self.buffer)
        self.saved.append(self.folder / str(progress.steps))
        while self.keep is not None and len(self.saved) > self.keep:
            shutil.rmtree(self.saved.pop(0), ignore_errors=True)


def callbacks_of(value: Any) -> tuple[Callback, ...]:
    """Callbacks from one or several. Raises UserError: one of them lacks a method."""
    several: Iterable[Any] = value if isinstance(value, Sequence) else (value,)
    for callback in several:
        missing = [name for name in METHODS if not callable(getattr(callback, name, None))]
        if missing or isinstance(callback, type):
            kind = f"the class {callback.__name__}" if isinstance(callback, type) else f"a {type(callback).__name__}"
            raise UserError(f"callbacks must have {', '.join(METHODS)}, and {kind} is none: derive it from Callback")
    return tuple(several)
