"""The cache that runs share: what one process is making, another waits for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from iquitos_rl.errors import UserError

POLL_S = 0.5


@contextlib.contextmanager
def only_process(product: Path, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other processes from making the same file or folder of the cache; wait for one that is.

    Whoever waited should look whether the product is there. The system holds the lock, in a file beside the product,
    and drops it with the process.

    Args:
        product: what is made; its folder is made here.
        check: called while waiting; what it raises ends the wait.

    Raises:
        UserError: the cache cannot be written to.
    """
    told = False
    try:
        product.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(product.with_name(product.name + ".lock"))
        while True:
            try:
                lock.acquire(timeout=POLL_S)
                break
            except Timeout:
                if not told:
                    print(f"waiting for another process, which is making {product}", flush=True)
                told = True
                check()
    except OSError as error:
        raise UserError(f"{product.parent} cannot be written to: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
