"""MAC addresses as a value type."""

from __future__ import annotations

import hashlib
import re
from typing import Self

from fast.errors import InvalidConfig

_TEXT = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}")


class Mac(bytes):
    """Six bytes in wire order; ``str()`` gives ``aa:bb:cc:dd:ee:ff``."""

    __slots__ = ()

    def __new__(cls, raw: bytes) -> Self:
        """Wrap six raw bytes; ValueError for any other length (a bug of the caller)."""
        if len(raw) != 6:  # noqa: PLR2004 -- the length of a MAC
            raise ValueError(f"a MAC has 6 bytes, not {len(raw)}")
        return super().__new__(cls, raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``aa:bb:cc:dd:ee:ff``.

        Raises:
            InvalidConfig: The text is not a MAC.
        """
        if not _TEXT.fullmatch(text):
            raise InvalidConfig(f"{text!r} is not a MAC address")
        return cls(bytes.fromhex(text.replace(":", "")))

    @classmethod
    def derived(cls, seed: str) -> Self:
        """Make a unicast, locally administered MAC that is the same for the same seed."""
        digest = hashlib.sha256(seed.encode()).digest()
        return cls(bytes([digest[0] & 0xFC | 0x02]) + digest[1:6])

    def __str__(self) -> str:
        return self.hex(":")

    def __repr__(self) -> str:
        return f"Mac({str(self)!r})"
