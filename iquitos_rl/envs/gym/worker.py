"""A gymnasium environment that runs in a process of its own, so that several slow simulators use several cores."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import gymnasium
import torch

from iquitos_rl.envs.described import DescribedEnv, Description
from iquitos_rl.errors import Failure, UserError
from iquitos_rl.machine import console
from iquitos_rl.machine.interrupt import held, release

START_SECONDS, HANG_SECONDS = 120.0, 30.0
"""A simulator that has not answered for so long, to being built or later, is taken for dead. The first takes seconds on
an idle machine, a step milliseconds."""


class WorkerError(Failure):
    """A worker process died, hangs, or its environment raised."""


def _serve(pipe: Connection, factory: Callable[[], gymnasium.Env[Any, Any]]) -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of the console; what it means is the parent's decision, which ends this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    release()
    console.protect()
    with contextlib.suppress(EOFError, OSError):
        try:
            env = factory()
            inner = env.unwrapped
            described = inner if isinstance(inner, DescribedEnv) else None
            description = Description() if described is None else described.description
            pipe.send((None, (env.observation_space, env.action_space, description)))
            while True:
                method, arguments, keywords = pipe.recv()
                if method == "close":
                    break
                answer = getattr(env, method)(*arguments, **keywords)
                pipe.send((None, (answer, 0 if described is None else described.table_row())))
        except UserError as error:
            pipe.send((error, None))
        except Exception as error:
            failure = WorkerError(f"{type(error).__name__}: {error}")
            failure.details = traceback.format_exc()
            pipe.send((failure, None))


class WorkerEnv(DescribedEnv):
    """An environment made by `factory` in another process. `begin_step` and `finish_step` let several work at once.

    Args:
        factory: picklable, since the process is spawned: a module's function, or a partial of one.
        name: what the worker is called when it fails.

    Raises:
        UserError: as the environment raises it.
        WorkerError: the process died, hangs, or its environment raised anything else.
    """

    def __init__(self, factory: Callable[[], gymnasium.Env[Any, Any]], name: str = "worker") -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, factory), name=name, daemon=True)
        with held():
            self._process.start()
        theirs.close()
        self.observation_space, self.action_space, self.description = self._receive(START_SECONDS)
        self._table_row = 0

    def __getstate__(self) -> dict[str, Any]:
        raise UserError("an agent whose environments run in processes cannot be copied: use save and load")

    def table_row(self) -> int:
        return self._table_row

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self._call("reset", seed=seed, options=options)  # type: ignore[no-any-return]

    def start_state(self) -> dict[str, Any]:
        return self._call("start_state")  # type: ignore[no-any-return]

    def restart(self, start: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return self._call("restart", start)  # type: ignore[no-any-return]

    def begin_step(self, action: Any) -> None:
        """Hand the action over without waiting for what it leads to."""
        self._send("step", action)

    def finish_step(self) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """What the action of `begin_step` led to."""
        return self._answer()  # type: ignore[no-any-return]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._call("step", action)  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process."""
        if self._process.is_alive():
            with contextlib.suppress(OSError):
                self._pipe.send(("close", (), {}))
            self._process.join(5)
            if self._process.is_alive():
                self._process.kill()
        self._pipe.close()

    def _call(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        self._send(method, *arguments, **keywords)
        return self._answer()

    def _answer(self) -> Any:
        """The result of a method; where the environment's observation then stands is known without asking again."""
        answer, self._table_row = self._receive(HANG_SECONDS)
        return answer

    def _send(self, method: str, *arguments: Any, **keywords: Any) -> None:
        try:
            self._pipe.send((method, arguments, keywords))
        except OSError:
            raise self._dead() from None

    def _receive(self, seconds: float) -> Any:
        ready = wait([self._pipe, self._process.sentinel], seconds)
        if not ready:
            self._process.kill()
            raise WorkerError(f"{self.name} has not answered for {seconds:g} s and was ended")
        if self._pipe not in ready and not self._pipe.poll(0):
            raise self._dead()
        try:
            error, answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise self._dead() from None
        if error is not None:
            raise error
        return answer

    def _dead(self) -> WorkerError:
        self._process.join(1)
        return WorkerError(f"{self.name} died with exit code {self._process.exitcode}")
