"""The codecs by name, and the types of settings about buffers. Needs no torch, as settings do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from iquitos_rl.registry import Registry

if TYPE_CHECKING:
    from iquitos_rl.buffers.codecs import Codec

CODECS: Registry[Codec] = Registry(
    "codec",
    {
        "float32": "iquitos_rl.buffers.codecs:FLOAT32",
        "float16": "iquitos_rl.buffers.codecs:FLOAT16",
        "uint8": "iquitos_rl.buffers.codecs:UINT8",
    },
)
Storage = Annotated[str, CODECS.named("auto")]
"""Of a replay buffer."""
RolloutStorage = Annotated[str, CODECS.named(only=lambda codec: codec.dtype is not None)]
"""Only plain casts store rollouts."""
Placement = Literal["cuda", "pinned", "ram", "disk"]
"""Where a replay buffer lies."""
