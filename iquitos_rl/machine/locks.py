"""Lock for the cache that runs share: one process makes a file or folder, the others wait for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from iquitos_rl.errors import UserError
from iquitos_rl.machine.interrupt import Check

POLL_S = 0.5


@contextlib.contextmanager
def only_process(product: Path, check: Check = lambda: None) -> Iterator[None]:
    """Hold the lock for making a file or folder of the cache; wait while another process holds it.

    After a wait the caller should check whether the product exists already. The operating system releases the lock (on
    a file next to the product, whose folder is created here) when the process ends.

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
                    print(f"waiting for another process that is making {product}", flush=True)
                told = True
                check()
    except OSError as error:
        raise UserError(f"{product.parent} cannot be written to: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
