"""The registry changes in force, by cluster, as meters are told of them (SPEC 6)."""

from ledger.protocol import records, topics
from ledger.protocol.cose import address_of
from ledger.protocol.messages import MAX_CHANGES, encode_members
from ledger.regional import kinds
from ledger.regional.application import RegionalApplication
from ledger.regional.blocks import place_of


class MembersNews:
    """Keeps the operators' approvals found in the chain and gives what to publish."""

    def __init__(self, application: RegionalApplication) -> None:
        self._application = application
        self._approvals: list[tuple[records.RegistryChange, bytes]] = []
        self._read_to = 0
        if application.height:
            self.read(application.height)

    def read(self, height: int) -> None:
        """Take in the approvals of a block, and of those before it that were not read yet.

        A node that begins from a snapshot has many at once; approvals stay where bodies are pruned.
        """
        blocks = self._application.blocks
        found = []
        for id_, _ in blocks.kept_records(self._read_to + 1, height + 1):
            envelope = blocks.envelope(id_)
            assert envelope is not None
            change = kinds.decode(envelope.payload)
            if isinstance(change, records.RegistryChange):
                found.append((place_of(id_)[0], change, envelope.raw))
        found.sort(key=lambda item: (item[0], item[1].number))
        self._approvals += [(change, raw) for _, change, raw in found]
        self._read_to = max(self._read_to, height)

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
