"""What a node of a cluster does with a step: see that its code is the driver's, unpack, carry out, send home."""

from __future__ import annotations

import _thread
import contextlib
import hashlib
import os
import pickle
import platform
import shutil
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from iquitos_rl.cluster.parcels import Files, Place, above, below, digest, dumps, listed, loads, pack, unpack
from iquitos_rl.envs.gym.worker import WorkerError
from iquitos_rl.errors import UserError
from iquitos_rl.machine import console
from iquitos_rl.machine.device import choose_threads
from iquitos_rl.machine.elsewhere import places
from iquitos_rl.machine.facts import code_digest, versions
from iquitos_rl.machine.files import write_json
from iquitos_rl.machine.inputs import TENSOR_BYTES, InputError, read_bytes, read_text, read_typed
from iquitos_rl.machine.interrupt import STATUS, Interrupted, Interrupts
from iquitos_rl.machine.locks import only_process

LISTEN_SECONDS = 1.0
SEND_SECONDS = 60.0
"""How often a node without the driver's disk sends home what a step has saved so far: its checkpoints."""


class Line(Protocol):
    """The connection of a node with the driver."""

    def fetch(self, ref: Any) -> Files:
        """Files that the driver has stored in the cluster."""

    def stopped(self, seconds: float) -> bool:
        """Wait so long for the user to interrupt; returns whether that has happened."""

    def keep(self, files: Files) -> None:
        """Have files written at home."""


class Parcel(NamedTuple):
    """The files at one path of home, kept in the cluster."""

    path: str
    digest: str
    ref: Any
    """What fetches them."""


class Order(NamedTuple):
    """A step on its way to a node."""

    software: dict[str, str]
    """What the driver runs, see `software`."""
    home: str
    """Name of the folder in which nodes without the driver's disk keep this driver's files."""
    mark: tuple[str, str]
    """Path and content of a file at home: a node that reads it sees the driver's disk."""
    environment: dict[str, str]
    """Environment variables that must be the same."""
    task: bytes
    """See `parcels.dumps`."""
    writes: tuple[str, ...]
    """Paths at home that the step adds to."""
    cases: dict[str, str]
    """Paths at home of folders, by what settings call them."""
    gpus: float
    parcels: tuple[Parcel, ...] | None
    """What the step needs; None: only a node that sees the driver's disk can do it."""


class Reply(NamedTuple):
    """What comes back."""

    node: str
    """Name of the node."""
    value: bytes | None = None
    """What the step returned, see `parcels.dumps`; None where it was interrupted or raised."""
    error: Exception | None = None
    files: Files = {}
    """What it wrote, where the node does not see the driver's disk."""
    needs_files: bool = False
    """Nothing was done: this node does not see the driver's disk, and no files came with the order."""


@cache
def software() -> dict[str, str]:
    """What must be the same on all nodes, by name: the package's own code, and the versions of what results depend on.
    Builds of PyTorch for a GPU and for none count as the same version."""
    found = {name: version.split("+")[0] for name, version in versions().items()}
    return {**found, "system": platform.system(), "code of iquitos_rl": code_digest()[:12]}


def differing(wanted: dict[str, str]) -> list[str]:
    """One phrase for each thing that this node runs in another version than the driver."""
    own = software()
    names = [name for name in dict.fromkeys([*wanted, *own]) if wanted.get(name) != own.get(name)]
    return [f"{name} is {own.get(name, 'missing')} there and {wanted.get(name, 'missing')} here" for name in names]


def carry_out(order: Order, line: Line, root: Path | None = None) -> Reply:
    """Carry a step out on this node. What the step raises is in the reply.

    Args:
        root: where nodes that do not see the driver's disk keep files; by default among temporary files.
    """
    node = socket.gethostname()
    if changes := differing(order.software):
        text = f"the node {node} runs other software: {'; '.join(changes)}; install the same on all nodes"
        return Reply(node, error=UserError(text))
    os.environ.update(order.environment)
    if order.gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # `device: auto` must mean the same on every node
    _prepare()
    try:
        if line.stopped(0):
            return Reply(node)
        if _sees(order.mark):
            return Reply(node, *_attempt(loads(order.task), order.cases, line))
        if order.parcels is None:
            return Reply(node, needs_files=True)
        folder = _scratch(root) / order.home
        return _apart(node, order, line, folder)
    except Exception as error:
        return Reply(node, error=_portable(error))


def _apart(node: str, order: Order, line: Line, folder: Path) -> Reply:
    """Carry a step out on a node that does not see the driver's disk, in a folder of its own."""
    place, home, writes = below(folder), above(folder), [Path(path) for path in order.writes]
    for parcel in order.parcels or ():
        _receive(parcel, line.fetch, place)
    for path in writes:
        place(path).parent.mkdir(parents=True, exist_ok=True)
    cases = {name: str(place(Path(path))) for name, path in order.cases.items()}
    value, error = _attempt(loads(order.task, place), cases, line, Sender(line, writes, place), home)
    files: Files = {}
    for path in writes:
        files |= pack(path, place)
        _remove(place(path))
    return Reply(node, value, error, files)


def _attempt(
    task: Any, cases: Mapping[str, str], line: Line, sender: Sender | None = None, home: Place = lambda path: path
) -> tuple[bytes | None, Exception | None]:
    """What a task returned, see `Reply.value`, or what it raised; neither where the user has interrupted it."""
    named = places({name: Path(path) for name, path in cases.items()})
    with Interrupts() as interrupts, named, _listening(line, sender):
        try:
            found = task(interrupts)
            return None if found is None else dumps(found, home), None
        except Interrupted as stopped:
            if stopped.status != STATUS + signal.SIGINT:  # not the user's wish: the node is being taken away
                os._exit(1)
            return None, None
        except Exception as error:
            return None, _portable(error)


class Sender:
    """Sends home what a step has saved since the last time."""

    def __init__(self, line: Line, writes: Sequence[Path], place: Place) -> None:
        self._line, self._writes, self._place = line, writes, place
        self._seen: dict[Path, tuple[int, int]] = {}
        self.send(nothing=True)

    def send(self, nothing: bool = False) -> None:
        """Send what is new; with `nothing` only note what is there."""
        found: Files = {}
        with contextlib.suppress(OSError, InputError):  # a file that is being replaced: the next time
            for path in self._writes:
                for file in listed(self._place(path)):
                    stat = file.stat()
                    if self._seen.get(file) != (signature := (stat.st_size, stat.st_mtime_ns)):
                        self._seen[file] = signature
                        if not nothing:
                            found[str(path / file.relative_to(self._place(path)))] = read_bytes(file, TENSOR_BYTES)
        if found:
            self._line.keep(found)


@contextlib.contextmanager
def _listening(line: Line, sender: Sender | None) -> Iterator[None]:
    """Inside this context the user's interruption reaches the step as Ctrl-C, and what it saves is sent home.

    After its end nothing is sent: what came home later would be older than what the step leaves."""
    ended, busy = threading.Event(), threading.Lock()

    def listen() -> None:
        sent = time.monotonic()
        with contextlib.suppress(ConnectionError):  # the driver has gone, and this process will be ended
            while not ended.is_set():
                stopped = line.stopped(LISTEN_SECONDS)
                with busy:
                    if ended.is_set():
                        return
                    if stopped:
                        _thread.interrupt_main()
                        return
                    if sender is not None and time.monotonic() - sent >= SEND_SECONDS:
                        sender.send()
                        sent = time.monotonic()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        with busy:
            ended.set()


@cache
def _prepare() -> None:
    """What a process of a pool does when it starts."""
    console.protect()
    choose_threads(1)


def _scratch(root: Path | None) -> Path:
    """A folder that is this user's own.

    Raises:
        UserError: somebody else has made one of its name.
    """
    folder = root or Path(tempfile.gettempdir()) / f"iquitos-rl-{_user()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder} on {socket.gethostname()} belongs to another user")
    return folder


def _sees(mark: tuple[str, str]) -> bool:
    try:
        return read_text(mark[0]) == mark[1]
    except InputError:
        return False


class _Seal(NamedTuple):
    """What was unpacked at a path."""

    digest: str
    names: list[str]


def _receive(parcel: Parcel, fetch: Callable[[Any], Files], place: Place) -> None:
    """Unpack files unless this node has them: what a step began here and did not finish must not be overwritten."""
    name = hashlib.sha256(parcel.path.encode()).hexdigest()[:16]
    seal = place(Path(Path(parcel.path).anchor)) / f".parcel-{name}.json"
    with only_process(seal):
        try:
            known = read_typed(seal, _Seal)
            if known.digest == parcel.digest and all(place(Path(name)).exists() for name in known.names):
                return
        except InputError:
            pass
        files = fetch(parcel.ref)
        if digest(files) != parcel.digest:
            raise WorkerError("files were damaged on their way through the cluster")
        unpack(files, place)
        write_json(seal, _Seal(parcel.digest, list(files))._asdict())


def _remove(path: Path) -> None:
    """Drop what is home already, so that a node's disk does not fill with finished runs."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _portable(error: Exception) -> Exception:
    """An error that can be made again at home."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        made = WorkerError(f"{type(error).__name__}: {error}")
        made.details = "".join(traceback.format_exception(error))
        return made
    return error


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
