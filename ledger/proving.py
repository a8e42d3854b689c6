"""Making proof files: what a node of the wide-area chain answers, and a region's ledger (SPEC 18).

Nothing that comes from a node is believed here before ``ledger.proof.verify_proof`` has passed on
the whole; a copy of a region's ledger is taken as it is, for what is wrong in it proves nothing.
"""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ledger import proof
from ledger.audit.regional import RegionalAudit
from ledger.audit.report import REGIONAL, AuditReport, Wrong
from ledger.audit.stored import Stored
from ledger.engine.abci import Answer
from ledger.genesis import WideGenesis
from ledger.light.client import Client, Provider
from ledger.light.types import LightBlock
from ledger.merkle import Log
from ledger.protocol import cbor, merkle
from ledger.protocol.cose import Envelope
from ledger.region import RegionDirectory
from ledger.regional.blocks import TABLES, place_of
from ledger.regional.state import Member, member_key
from ledger.regional.view import LedgerView
from ledger.wide.state import Region

Sections = dict[int, list[Any]]

_TRIES = 10
_WAIT_S = 10.0
_PAUSE_S = 0.1


class NotProvable(Exception):
    """What was asked for cannot be proved from here; says why, and what would help."""


class Node(Provider, Protocol):
    """A node of the wide-area chain; ``ledger.engine.comet.rpc.Rpc`` is one."""

    def query(self, path: str, key: bytes) -> Answer:
        """Ask the application; raises OSError."""


@dataclass(frozen=True)
class Follower:
    """A light client with the light blocks that lead to what it trusts.

    ``first`` is the light block of a trusted height and hash; None where the genesis is trusted.
    """

    genesis: WideGenesis
    client: Client
    first: LightBlock | None = None

    def blocks(self) -> list[bytes]:
        """Give the light blocks as a proof file holds them."""
        found = [] if self.first is None else [self.first]
        return [block.encode() for block in [*found, *self.client.path]]


def prove_region(
    node: Node,
    follower: Follower,
    region: bytes,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Sections:
    """Give the sections that show a region's figures, as the node tells them.

    Waits a while for the header that holds the state asked for. Raises NotProvable, the node's
    OSError, or the ProtocolError of what the node tells.
    """
    leaf, summary, gateways = _ask(node, region)
    wait_for_state(node, follower.client, leaf, sleep)
    sections: Sections = {
        proof.CHAIN: [follower.blocks()],
        proof.REGION: [region, leaf.value, leaf.proof],
    }
    if summary is None or gateways is None or summary.value is None:
        return sections  # nothing reported, or the body of the summary was pruned
    keys = proof.gateways_of(follower.genesis, region, gateways.value)
    envelope = Envelope.parse(summary.value)
    if envelope.kid in keys:
        answers = [summary.value, summary.proof, gateways.value, gateways.proof]
    else:  # its keys were replaced since
        answers = [envelope.payload, summary.proof, None, None]
    sections[proof.SUMMARY] = answers
    return sections


def _ask(node: Node, region: bytes) -> tuple[Answer, Answer | None, Answer | None]:
    """Ask for a region's leaf, newest summary and gateways, all of one state."""
    for _ in range(_TRIES):
        leaf = node.query("region", region)
        if leaf.value is None:
            return leaf, None, None
        to_height = proof.region_leaf(leaf.value).to_height
        summary = node.query("summary", region + to_height.to_bytes(8, "big"))
        gateways = node.query("gateways", region)
        if leaf.app_hash == summary.app_hash == gateways.app_hash:
            return leaf, summary, gateways
    raise NotProvable("the chain goes on faster than the node answers: try again")


def follow_state(node: Node, client: Client, answer: Answer) -> bool:
    """Believe a header that holds the answer's state: that of the next block, or of this one.

    The next block comes at once where the state has changed; else the header before holds it too.
    Gives False where there is none, maybe not yet; raises UntrustedHeader, or the node's OSError.
    """
    heights = (answer.height + 1, answer.height)
    return any(_holds(node, client, height, answer.app_hash) for height in heights)


def wait_for_state(
    node: Node, client: Client, answer: Answer, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Do so as soon as there is such a header; raises NotProvable where none comes in 10 s."""
    waited = 0.0
    while not follow_state(node, client, answer):
        if waited >= _WAIT_S:
            raise NotProvable(f"no header shows the state after block {answer.height}: try later")
        sleep(_PAUSE_S)
        waited += _PAUSE_S


def _holds(node: Node, client: Client, height: int, app_hash: bytes) -> bool:
    if height == client.trusted.height and client.path:
        return client.path[-1].header.app_hash == app_hash
    if height <= client.trusted.height:
        return False
    try:
        block = node.light_block(height)
    except OSError:
        return False  # not there yet; a node that is gone is found out by whoever asks next
    if block.header.app_hash != app_hash:
        return False
    client.follow(node, height)
    return True


# ---------------------------------------------------------------------------- the regional part


def prove_reading(
    directory: RegionDirectory, digest: bytes, leaf: Region, *, replay: bool = False
) -> Sections:
    """Give the sections that show a reading in a region that has reported ``leaf``.

    That its meter is a member is shown where the copy's newest block is one that was reported, or
    with ``replay``, which gets the state of the newest such block back by an audit up to there.
    Raises NotProvable, StoreError or RegionError.
    """
    view = LedgerView(directory.regional, directory.load_genesis().parameters.round_s)
    try:
        regional = _Regional(view, leaf)
        sections = regional.prove(digest)
        if proof.MEMBER not in sections and replay:
            address = Envelope.parse(sections[proof.READING][1]).kid
            member = _replayed(directory, leaf.to_height, address)
            sections[proof.MEMBER] = [*regional.head(leaf.to_height), *member]
        return sections
    except (sqlite3.Error, LookupError, ValueError) as e:  # what is not there, or is no record
        why = f"the copy in {directory.path} is damaged ({e}): `gridwitness audit` tells where"
        raise NotProvable(why) from e
    finally:
        view.close()


class _Regional:
    def __init__(self, view: LedgerView, leaf: Region) -> None:
        self._view = view
        self._blocks = view.blocks
        self._size = leaf.to_height
        height = self._blocks.height()
        if height < self._size:
            raise NotProvable(
                f"the copy ends at block {height}, and the region has reported {self._size}:"
                " take a newer copy"
            )
        self._log = Log(self._blocks, height)
        if self._log.root(self._size) != leaf.log_root:
            raise NotProvable("the region has reported another chain than this copy holds")

    def prove(self, digest: bytes) -> Sections:
        """Give the sections that this copy shows as it is."""
        id_ = self._blocks.find_reading(digest)
        if id_ is None:
            first = self._blocks.first_body()
            pruned = f", whose blocks before {first} were pruned" if first > 1 else ""
            raise NotProvable(f"reading {digest.hex()} is not in this copy of the ledger{pruned}")
        height, index = place_of(id_)
        if height > self._size:
            raise NotProvable(
                f"reading {digest.hex()} is in block {height}, and the region has reported up to"
                f" block {self._size}: wait for its next summary"
            )
        envelopes = self._blocks.envelopes_of(height)
        path = merkle.inclusion_path([envelope.digest for envelope in envelopes], index)
        known = [row for row in self._blocks.results_of(id_) if row[0] <= self._size]
        settled = known[-1][0] if known else height
        heads = [self.head(h) for h in sorted({height, settled})]
        result = self._result(settled, digest) if known else []
        reading = envelopes[index]
        key = self._key(reading.kid)
        sections: Sections = {proof.READING: [heads, reading.raw, index, path, result, key]}
        newest = self._blocks.height()
        if newest <= self._size:
            sections[proof.MEMBER] = [*self.head(newest), *self._member(reading.kid)]
        return sections

    def head(self, height: int) -> list[Any]:
        """Give a head's payload and its path in the log that was reported."""
        return [self._blocks.head_payload(height), self._log.inclusion(height - 1, self._size)]

    def _result(self, height: int, digest: bytes) -> list[Any]:
        """Give counts, index, size and path of a reading's result in a block."""
        leaves: list[tuple[bytes, list[int]]] = []
        for id_, at, *rest in self._blocks.results_from(height):
            if at != height:
                break
            *counts, named = rest
            leaves.append((named or self._digest(id_), counts))
        leaves.sort()
        index = [own for own, _ in leaves].index(digest)
        encoded = [cbor.dumps([own, *counts]) for own, counts in leaves]
        path = merkle.inclusion_path(encoded, index)
        return [*leaves[index][1], index, len(leaves), path]

    def _digest(self, id_: int) -> bytes:
        envelope = self._blocks.envelope(id_)
        if envelope is None:
            raise NotProvable("the copy lacks what its blocks need: audit it")
        return envelope.digest

    def _key(self, address: bytes) -> bytes:
        value = self._blocks.state_value(member_key(address))
        if value is None:
            raise NotProvable(f"the copy does not know meter {address.hex()}: audit it")
        return Member.decode(value).public_key

    def _member(self, address: bytes) -> list[Any]:
        leaf = member_key(address)
        return [self._blocks.state_value(leaf), self._view.state().prove(leaf).encode()]


class _Reached(Exception):
    """The audit has come to the block whose state is asked for."""


def _replayed(directory: RegionDirectory, height: int, address: bytes) -> list[Any]:
    """Give a member's leaf and its proof in the state after a block, audited up to there."""

    def stop(done: int, _: int) -> None:
        if done == height:
            raise _Reached

    try:
        stored = Stored(directory.regional, TABLES, REGIONAL)
    except Wrong as e:
        raise NotProvable(str(e)) from e
    audit = RegionalAudit(directory.load_genesis(), stored, AuditReport())
    try:
        audit.run(stop)
        raise NotProvable(f"the copy cannot be replayed up to block {height}")
    except _Reached:
        leaf = member_key(address)
        return [audit.app.blocks.state_value(leaf), audit.app.state.prove(leaf).encode()]
    except Wrong as e:
        raise NotProvable(f"the copy does not pass an audit: {e}") from e
    finally:
        audit.close()
        stored.close()
