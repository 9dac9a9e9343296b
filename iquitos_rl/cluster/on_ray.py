"""An executor of nodes that Ray connects. Ray places steps, starts processes, moves bytes, and tries a step again when
its node dies. What a step is, and where its files go, is decided here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iquitos_rl.cluster import node
from iquitos_rl.cluster.desk import Desk
from iquitos_rl.cluster.node import Order, Parcel, Reply, software
from iquitos_rl.cluster.parcels import Files, digest, dumps, listed, loads, pack, unpack, within
from iquitos_rl.envs.gym.worker import WorkerError
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import write_text
from iquitos_rl.machine.interrupt import Interrupts
from iquitos_rl.machine.unexpected import SHOW
from iquitos_rl.registry import VARIABLE
from iquitos_rl.runs.executor import Step

INSTALL = "install Ray for --cluster: pip install 'iquitos_rl[cluster]'"
TRIES_AGAIN = 3
"""How often a step is tried again whose process or node died."""
POLL_SECONDS = 0.5
SAVING_SECONDS = 120.0
"""How long nodes have to save what they do, and to send it home, when the user interrupts."""
SILENT_SECONDS = 30.0
"""After so long without a step finished, a cluster without a free node is told."""
CALLERS = 10_000
"""Most steps that run at the same time."""
INHERITED = (VARIABLE, SHOW)


class RayExecutor:
    """An executor of the nodes of a Ray cluster, of which this machine is one.

    Args:
        address: `auto` for the cluster that was started on this machine, or HOST:PORT of its head.
        folder: where results are; nodes that see it work in it, others send their files home.
        interrupts: of the user; looked at while this process waits.
        hint: how to resume, printed when the user interrupts.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str, folder: Path, interrupts: Interrupts, hint: str) -> None:
        self._interrupts, self._hint, self._folder = interrupts, hint, folder.absolute()
        self._ray, self._connected = connect(address)
        self._call = self._ray.remote(_carry_out)
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=False
        )
        desk = self._ray.remote(Desk).options(num_cpus=0, max_concurrency=CALLERS, scheduling_strategy=here)
        self._desk = desk.remote()
        self._running: dict[Any, tuple[str, Step[Any]]] = {}
        self._parcels: dict[tuple[Any, ...], Parcel] = {}
        self._possible: set[float] = set()
        """Graphics cards a step that some node has had."""
        self._send_files = False
        """Whether a node has said that it does not see this disk."""
        self._mark = self._folder / f".cluster-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex

    @property
    def room(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 0)))

    def __enter__(self) -> RayExecutor:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_text(*self._mark)
        return self

    def __exit__(self, *_: object) -> None:
        self._desk.stop.remote()
        with contextlib.suppress(OSError):
            self._mark[0].unlink(missing_ok=True)
        if self._connected:
            self._ray.shutdown()

    def submit(self, name: str, step: Step[Any]) -> None:
        if step.gpus not in self._possible:
            nodes = [found["Resources"] for found in self._ray.nodes() if found["Alive"]]
            if not any(own.get("CPU", 0) >= 1 and own.get("GPU", 0) >= step.gpus for own in nodes):
                cards = f", {step.gpus:g} GPU" if step.gpus else ""
                raise UserError(f"no node of the cluster has what {name} takes: 1 CPU{cards}")
            self._possible.add(step.gpus)
        self._send(name, step)

    def check(self) -> None:
        for ref in self._done(0.0):
            self._reply(ref, self._running[ref][0])

    def finished(self) -> Iterator[tuple[str, Any]]:
        since, told = time.monotonic(), False
        while self._running:
            done, _ = self._ray.wait(list(self._running), timeout=POLL_SECONDS)
            for ref in done:
                name, step = self._running[ref]
                reply = self._reply(ref, name)
                del self._running[ref]
                since, told = time.monotonic(), False
                if reply.needs_files:
                    self._send_files = True
                    self._send(name, step)
                elif reply.value is not None:
                    yield name, loads(reply.value)
            if self._interrupts.number is not None:
                self._stop()
                self._interrupts.check(self._hint)
            if not told and time.monotonic() - since > SILENT_SECONDS:
                told = self._tell_if_idle()

    def _send(self, name: str, step: Step[Any]) -> None:
        parcels = None
        if self._send_files:
            found = [self._parcel(path.absolute()) for path in dict.fromkeys([*step.reads, *step.writes])]
            parcels = tuple(parcel for parcel in found if parcel is not None)
        order = Order(
            software(),
            hashlib.sha256(f"{socket.gethostname()} {self._folder}".encode()).hexdigest()[:16],
            (str(self._mark[0]), self._mark[1]),
            {key: os.environ[key] for key in INHERITED if key in os.environ},
            dumps(step.task),
            tuple(str(path.absolute()) for path in step.writes),
            {key: str(path.absolute()) for key, path in step.cases.items()},
            step.gpus,
            parcels,
        )
        placed = self._call.options(name=name, num_cpus=1, num_gpus=step.gpus, max_retries=TRIES_AGAIN)
        self._running[placed.remote(order, self._desk)] = name, step

    def _parcel(self, path: Path) -> Parcel | None:
        """The files at a path, stored in the cluster once for all steps that need them; None where there are none."""
        stats = [(str(file), file.stat()) for file in listed(path)]
        if not stats:
            return None
        key = (str(path), *((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))
        if key not in self._parcels:
            files = pack(path)
            self._parcels[key] = Parcel(str(path), digest(files), self._ray.put(files))
        return self._parcels[key]

    def _reply(self, ref: Any, name: str) -> Reply:
        """What a node has answered; its files are written before anything else is done."""
        try:
            reply: Reply = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise WorkerError(_no_reply(name, error)) from None
        except self._ray.exceptions.RayError as error:
            text = f"the process or node of {name} died {TRIES_AGAIN + 1} times, perhaps because memory ran out"
            raise WorkerError(f"{text} ({type(error).__name__})") from None
        if reply.files:
            if not within(reply.files, [path.absolute() for path in self._running[ref][1].writes]):
                raise WorkerError(f"the node {reply.node} sent files that {name} does not write")
            unpack(reply.files)
        if reply.error is not None:
            if type(reply.error) is UserError and reply.node != socket.gethostname():
                raise UserError(f"{reply.error} (on the node {reply.node})")
            raise reply.error
        return reply

    def _stop(self) -> None:
        """Have everything stop, save and come home."""
        print(f"{len(self._running):,} steps stop and save", file=sys.stderr, flush=True)
        self._desk.stop.remote()  # `ray.cancel` would race with steps that end: Ray 2.60 aborts this process then
        for ref in self._done(SAVING_SECONDS):
            self._reply(ref, self._running[ref][0])
            del self._running[ref]

    def _done(self, seconds: float) -> list[Any]:
        """What has ended when all have, or after so long."""
        refs = list(self._running)
        return list(self._ray.wait(refs, num_returns=len(refs), timeout=seconds)[0]) if refs else []

    def _tell_if_idle(self) -> bool:
        """Say why nothing happens, where no node is left that could do anything."""
        if any(found["Alive"] and found["Resources"].get("CPU", 0) >= 1 for found in self._ray.nodes()):
            return False
        print(f"no node is left: {len(self._running):,} steps wait for one to join", file=sys.stderr, flush=True)
        return True


def connect(address: str) -> tuple[Any, bool]:
    """The module ray, connected to a cluster, and whether it was this that connected it.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        raise UserError(INSTALL if missing else f"{INSTALL} (what is installed cannot be imported: {error})") from None
    if ray.is_initialized():
        return ray, False
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        start = "`ray start --head` starts one, `ray start --address=HEAD:6379` adds a node"
        raise UserError(f"--cluster {address}: there is no Ray cluster ({error}); {start}") from None
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray's own would end this process at once
    return ray, True


class _Line:
    """A node's connection with the driver's desk."""

    def __init__(self, ray: Any, desk: Any) -> None:
        self._ray, self._desk = ray, desk
        self._interrupted = desk.stopped.remote(True)

    def fetch(self, ref: Any) -> Files:
        found: Files = self._ray.get(ref)
        return found

    def stopped(self, seconds: float) -> bool:
        if seconds == 0:
            return bool(self._get(self._desk.stopped.remote(False)))
        done, _ = self._ray.wait([self._interrupted], timeout=seconds)
        return bool(done) and bool(self._get(self._interrupted))

    def keep(self, files: Files) -> None:
        self._get(self._desk.keep.remote(files))

    def _get(self, ref: Any) -> Any:
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayActorError:
            raise ConnectionError("the driver has gone") from None


def _carry_out(order: Order, desk: Any) -> Reply:
    import ray

    return node.carry_out(order, _Line(ray, desk))


def _no_reply(name: str, error: Any) -> str:
    """What Ray says of a step that never began on its node."""
    last = (str(error.cause if getattr(error, "cause", None) else error).strip().splitlines() or ["?"])[-1]
    return f"{name} could not begin on its node ({last}): is the same iquitos_rl installed there?"
