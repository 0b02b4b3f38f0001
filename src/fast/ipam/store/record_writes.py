"""Single writes of records; remembers those that got no answer (race: lost-answer). No decisions."""

from __future__ import annotations

from fast.api.ipendpoint import IpEndpoint, IpEndpointSpec
from fast.api.timestamps import now_text
from fast.errors import KubeError, Unavailable
from fast.ipam.rules.claim_request import AttachmentKey
from fast.ipam.rules.record_states import freed, holder_of
from fast.ipam.store.record_store import Store

#: How often a decision is made again about a record that turned out to have changed.
MOST_ATTEMPTS = 8


class Writes:
    """Writes to a store. A write without an answer is remembered for the attachments that it concerns.

    Every method raises the errors of :class:`fast.ipam.store.record_store.Store`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unanswered: dict[AttachmentKey, set[str]] = {}

    async def bind(self, record: IpEndpoint, before: IpEndpoint | None = None) -> IpEndpoint:
        """Create a record, or put it in the place of ``before``. If no answer comes, ask once what became of it."""
        try:
            return await (self._store.create(record) if before is None else self._store.replace(record))
        except Unavailable as error:
            try:
                found = await self.read(record, before)
            except KubeError:
                raise error from None
            if found is None or found.spec != record.spec:
                raise
            return found

    async def change(self, record: IpEndpoint, spec: IpEndpointSpec) -> IpEndpoint:
        """Give this version of the record another spec."""
        after = IpEndpoint(metadata=record.metadata, spec=spec)
        try:
            return await self._store.replace(after)
        except Unavailable:
            self._remember(record, after)
            raise

    async def delete(self, record: IpEndpoint) -> None:
        """Delete this version of the record."""
        try:
            await self._store.delete(record)
        except Unavailable:
            self._remember(record)
            raise

    async def free(self, record: IpEndpoint) -> None:
        """Free this version of the record: delete it, or retain it for its sticky key."""
        after = freed(record, now_text())
        if after is None:
            await self.delete(record)
        else:
            await self.change(record, after.spec)

    async def read(self, record: IpEndpoint, before: IpEndpoint | None = None) -> IpEndpoint | None:
        """Read the record past the view. If that fails, it is read before the next call decides."""
        try:
            return await self._store.refresh(record.metadata.name)
        except KubeError:
            self._remember(record, before)
            raise

    async def look_up_unanswered(self, key: AttachmentKey) -> None:
        """Show in the view what became of this attachment's writes that got no answer.

        Raises:
            KubeError: It cannot be found out yet; nothing may be decided about the attachment before.
        """
        while names := self._unanswered.pop(key, None):
            try:
                while names:
                    await self._store.refresh(min(names))
                    names.discard(min(names))
            finally:  # with what another attachment's write left meanwhile
                if names:
                    self._unanswered.setdefault(key, set()).update(names)

    def _remember(self, *records: IpEndpoint | None) -> None:
        """Remember a record for whoever holds it as it was before the write, or as it is after it."""
        for record in records:
            if record is not None and record.spec.container_id:
                self._unanswered.setdefault(holder_of(record), set()).add(record.metadata.name)
