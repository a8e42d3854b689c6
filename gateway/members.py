"""The registry changes in force, by cluster, as meters are told of them (SPEC 6)."""

from ledger.protocol import records, topics
from ledger.protocol.cose import address_of
from ledger.protocol.messages import MAX_CHANGES, encode_members
from ledger.regional.application import RegionalApplication
from ledger.regional.blocks import record_id


class MembersNews:
    """Keeps the operators' approvals found in the chain and gives what to publish."""

    def __init__(self, application: RegionalApplication) -> None:
        self._application = application
        self._approvals: list[tuple[records.RegistryChange, bytes]] = []
        if application.state.registry.changes or len(application.state.approvals):
            for height in range(1, application.height + 1):
                self.read(height)

    def read(self, height: int) -> None:
        """Take the approvals of a block in; registry changes are the last records of a block."""
        blocks = self._application.blocks
        found = []
        for index in reversed(range(blocks.head(height).record_count)):
            envelope = blocks.envelope(record_id(height, index))
            if envelope is None:
                break
            change = records.decode(envelope.payload)
            if not isinstance(change, records.RegistryChange):
                break
            found.append((change, envelope.raw))
        self._approvals += sorted(found, key=lambda pair: pair[0].number)

    def messages(self) -> list[tuple[str, bytes]]:
        """Give (topic, message) of each cluster with changes in force; the newest where many."""
        by_cluster: dict[str, list[bytes]] = {}
        for change, raw in self._approvals:
            member = self._application.state.members.get(address_of(change.public_key))
            if member is None or (change.action == records.LEAVE and member.active_until is None):
                continue
            by_cluster.setdefault(member.cluster, []).append(raw)
        chain = self._application.genesis.chain
        return [
            (topics.members(chain, cluster), encode_members(changes[-MAX_CHANGES:]))
            for cluster, changes in sorted(by_cluster.items())
        ]
