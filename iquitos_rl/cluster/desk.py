"""The driver's desk: a small process on the driver's machine that nodes call while a step runs."""

from __future__ import annotations

import asyncio

from iquitos_rl.cluster.parcels import Files, unpack


class Desk:
    """Tells nodes that the user has interrupted, and writes what they save before a step is done."""

    def __init__(self) -> None:
        self._stop = asyncio.Event()

    async def stop(self) -> None:
        """Have every step stop and save."""
        self._stop.set()

    async def stopped(self, wait: bool) -> bool:
        """Whether the user has interrupted; with `wait` it answers only when that happens."""
        if wait:
            await self._stop.wait()
        return self._stop.is_set()

    async def keep(self, files: Files) -> None:
        """Write files to where they are at home. Raises OSError."""
        unpack(files)
