"""What the maps held when the agent began: so that a restart writes nothing where nothing changed.

Rule sets are known again by the digest of their content, classes by what they mean to those rule sets. What is not
known again is deleted once it is no longer referred to.
"""

from __future__ import annotations

from collections.abc import Iterable

from fast.policy.compiled_maps import Maps
from fast.policy.map_layout import Map, PodPolicy
from fast.policy.plan import Delete, Put
from fast.policy.rulesets import Page


class Remembered:
    """The maps as they were read back. Empty: the maps are empty."""

    def __init__(self, maps: Maps | None = None) -> None:
        self.maps = maps or Maps()
        self._by_digest = {digest: number for number, digest in self.maps.digests.items()}
        self._ports: dict[int, dict[object, int]] = {}
        for (number, prefix), bits in self.maps.port_bits.items():
            self._ports.setdefault(number, {})[prefix] = bits
        self._kept: set[int] = set()

    @property
    def kept(self) -> frozenset[int]:
        """The pages that stay."""
        return frozenset(self._kept)

    @property
    def next_page(self) -> int:
        """A page's number above all that are there."""
        numbers = {*self.maps.rule_sets, *self.maps.digests, *self._ports}
        numbers.update(number for number, _ in self.maps.peer_bits)
        return max(numbers, default=0) + 1

    @property
    def next_class(self) -> int:
        """A class's number above all that are there."""
        numbers = {peer_class for _, peer_class in self.maps.peer_bits}
        numbers.update(self.maps.blocks.values(), self.maps.classes.values())
        numbers.update(pod.peer_class for pod in self.maps.pods.values())
        return max(numbers, default=0) + 1

    def find_pages(self, digest: bytes, pages: list[Page]) -> list[int] | None:
        """Give the numbers under which the maps have a rule set, whole; None if they have not."""
        number = self._by_digest.get(digest, 0)
        numbers = []
        for page in pages:
            value = self.maps.rule_sets.get(number)
            if value is None or self._ports.get(number, {}) != page.ports:
                return None
            numbers.append(number)
            number = value.next
        if number or len(set(numbers)) != len(numbers):
            return None
        self._kept.update(numbers)
        return numbers

    def class_meanings(self) -> dict[int, dict[int, int]]:
        """Give what each class means to the pages that stay: its bits by page."""
        entries: dict[int, dict[int, int]] = {}
        for (page, peer_class), bits in self.maps.peer_bits.items():
            if page in self._kept:
                entries.setdefault(peer_class, {})[page] = bits
        return entries

    def class_of(self, address: bytes) -> int:
        """The class that an address had, or 0."""
        pod = self.maps.pods.get(address)
        return self.maps.classes.get(address, 0) if pod is None else pod.peer_class

    def has(self, put: Put) -> bool:
        """Whether the maps have this entry already."""
        return bool(self.maps.of(put.map).get(put.key) == put.value)

    def without_class(self, addresses: Iterable[bytes], peer_class: int) -> tuple[bytes, ...]:
        """Give the addresses that have another class, or none, in the maps."""
        classes = self.maps.classes
        return tuple(key for key in addresses if classes.get(key, 0) != peer_class)

    def find_pod(self, address: bytes) -> PodPolicy | None:
        """Policy's part of a local pod's entry."""
        return self.maps.pods.get(address)

    def leftovers(self, wanted: dict[Map, set[object]]) -> list[Delete]:
        """Give a delete for each entry that is not wanted."""
        return [
            Delete(which, key) for which in Map for key in self.maps.keys(which) if key not in wanted[which]
        ]
