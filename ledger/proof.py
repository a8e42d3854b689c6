"""Proof files: from a genesis that one trusts down to a meter's signed reading (SPEC 18).

A file carries everything that is needed to check it, and is checked offline, in this order:

    CHAIN     light blocks, from the genesis or a trusted header to one header    -> app hash
    REGION    the region's leaf in that state                  -> figures, size and root of its log
    SUMMARY   its newest summary, in the chain's log, with its gateway's signature where that one
              is a gateway of the region still
    READING   a head in the region's log, a reading in that block, what was decided of it
    MEMBER    the meter's leaf in the state of one of the region's blocks, none before READING's

``verify_proof`` says what is shown and nothing else; it has no clock, no network and no files.
Whoever makes the file can leave sections out, and so show less. What is shown is what the chains
hold: a false CHAIN takes a third of the validators or more, by power; READING and MEMBER are what
the region's gateways have committed themselves to, and only the meter's key signs its reading.

Making such files is ``ledger.proving``.
"""

from dataclasses import dataclass, replace
from typing import Any

from ledger.findings import Findings, Header, Membership, SettledReading
from ledger.genesis import WideGenesis, addresses
from ledger.light.types import LightBlock
from ledger.light.verify import Clock, Trusted, UntrustedHeader, verify
from ledger.protocol import cbor, merkle, p256, records, tally
from ledger.protocol.cose import Envelope, address_of, payload_digest
from ledger.protocol.errors import BadProof, MalformedRecord, ProtocolError
from ledger.regional.state import member_key
from ledger.trie import Proof
from ledger.trie import verify as verify_leaf
from ledger.wide.proofs import verify_gateways, verify_region, verify_summary
from ledger.wide.state import Region
from ledger.wide.summary import MAX_ENERGY, Summary

MAGIC = "gridwitness proof"
VERSION = 1

CHAIN, REGION, SUMMARY, READING, MEMBER = 1, 2, 3, 4, 5

ENVELOPE_START = b"\xd2"
"""The first byte of an envelope, and of no payload (SPEC 3.1)."""

MAX_PROOF_BYTES = 8 << 20
MAX_BLOCKS = 4096
_MOST_ITEMS = 1 << 16
_MAX_PAYLOAD_BYTES = 1024
_LENGTHS = {CHAIN: 1, REGION: 3, SUMMARY: 4, READING: 6, MEMBER: 4}
_NEEDS = {CHAIN: CHAIN, REGION: CHAIN, SUMMARY: REGION, READING: REGION, MEMBER: READING}

Pin = tuple[int, bytes]
"""A trusted height and the hash of its header, in place of the genesis."""


class UnknownProof(ProtocolError):
    """Not a proof file, or of a version or with a section that this program does not know."""


def encode(genesis: WideGenesis, sections: dict[int, list[Any]]) -> bytes:
    """Give the file of sections by their number; nothing is checked."""
    rows = [[number, *sections[number]] for number in sorted(sections)]
    return cbor.dumps([MAGIC, VERSION, genesis.chain, rows])


def verify_proof(
    data: bytes, genesis: WideGenesis, pin: Pin | None = None, clock: Clock | None = None
) -> Findings:
    """Give what a file shows to somebody who trusts ``genesis``, or the header that ``pin`` names.

    Raises UnknownProof, or another ProtocolError where anything in it is wrong.
    """
    sections = decode(data, genesis)
    header, app_hash = _check_chain(sections[CHAIN], genesis, pin, clock)
    region, leaf = _check_region(app_hash, *sections[REGION])
    findings = Findings(header, region, leaf)
    if leaf is None:
        if len(sections) > 2:
            raise BadProof("more is shown of a region that has reported nothing")
        return findings
    if SUMMARY in sections:
        where = (app_hash, genesis, region, leaf)
        told, gateway = _check_summary(where, sections[SUMMARY])
        findings = replace(findings, summary=told, gateway=gateway)
    if READING in sections:
        log = _Log(region, leaf.to_height, leaf.log_root)
        findings = replace(findings, reading=_check_reading(log, sections[READING]))
        if MEMBER in sections:
            key = sections[READING][-1]
            member = _check_member(log, key, sections[MEMBER])
            if member.block < _last_block(findings.reading):
                raise BadProof("the meter's leaf is of a block before what is shown of the reading")
            findings = replace(findings, member=member)
    return findings


def decode(data: bytes, genesis: WideGenesis) -> dict[int, list[Any]]:
    """Take a file apart into sections by their number; raises UnknownProof or BadProof."""
    if len(data) > MAX_PROOF_BYTES:
        raise UnknownProof("larger than any proof file")
    try:
        magic, version, chain, rows = records.array(cbor.loads(data, _MOST_ITEMS), 4, 4, "file")
        if magic != MAGIC or type(version) is not int:
            raise MalformedRecord("it does not begin like one")
    except MalformedRecord as e:
        raise UnknownProof(f"not a proof file: {e}") from None
    if version != VERSION:
        raise UnknownProof(f"a proof file of version {version}; this program reads {VERSION}")
    if chain != genesis.chain:
        raise BadProof("the proof is of another chain than that of the trusted genesis")
    sections: dict[int, list[Any]] = {}
    for row in records.array(rows, 0, 0xFF, "sections"):
        number = records.integer(records.array(row, 1, 0xFF, "section")[0], 1, 0xFFFF, "number")
        if number not in _LENGTHS:
            raise UnknownProof(f"section {number} is not known here: use a newer program")
        if sections and number <= max(sections):
            raise BadProof("the sections do not rise")
        if len(row) - 1 != _LENGTHS[number]:
            raise BadProof(f"section {number} has not {_LENGTHS[number]} fields")
        sections[number] = row[1:]
    missing = {CHAIN, REGION, *(_NEEDS[number] for number in sections)} - set(sections)
    if missing:
        raise BadProof(f"section {min(missing)} is missing")
    return sections


# ------------------------------------------------------------------------ the wide-area chain


def _check_chain(
    section: list[Any], genesis: WideGenesis, pin: Pin | None, clock: Clock | None
) -> tuple[Header, bytes]:
    blocks = [_block(item) for item in records.array(section[0], 1, MAX_BLOCKS, "light blocks")]
    trusted, header = Trusted.start(genesis), None
    if pin is not None:
        height, hash_ = pin
        while blocks and blocks[0].header.height < height:
            blocks.pop(0)
        if not blocks or blocks[0].header.height != height:
            raise UntrustedHeader(f"the proof does not lead through height {height}")
        first = blocks.pop(0)
        trusted, header = Trusted.block(trusted.chain_id, first, hash_), first.header
    for block in blocks:
        trusted, header = verify(trusted, block, clock), block.header
    assert header is not None
    where = (trusted.chain_id, genesis.name, header.height, header.hash, header.time.seconds)
    return Header(*where, None if pin is None else pin[0]), header.app_hash


def _block(item: Any) -> LightBlock:
    """Give a light block that is written in the one way that this file has for it."""
    if type(item) is not bytes:
        raise MalformedRecord("a light block is not bytes")
    block = LightBlock.decode(item)
    if LightBlock.of(block.header, block.commit, block.validators).encode() != item:
        raise BadProof("a light block in another form than its own")
    return block


def _check_region(
    app_hash: bytes, region: Any, value: Any, proof: Any
) -> tuple[bytes, Region | None]:
    records.octets(region, records.CHAIN_BYTES, "region id")
    if value is not None and type(value) is not bytes:
        raise MalformedRecord("a region's leaf is not bytes")
    verify_region(app_hash, region, value, proof)
    return region, None if value is None else region_leaf(value)


def region_leaf(value: bytes) -> Region:
    """Take a region's leaf apart, whoever it comes from; raises MalformedRecord."""
    leaf = Region(*records.array(cbor.loads(value), 15, 15, "region's leaf"))
    for number in (leaf.summaries, leaf.to_height, leaf.witnessed_height, leaf.energy_in):
        records.integer(number, 0, MAX_ENERGY, "total")
    for number in (leaf.energy_out, leaf.accepted, leaf.rejected, leaf.unconfirmed):
        records.integer(number, 0, MAX_ENERGY, "total")
    for number in (leaf.alarms, leaf.members):
        records.integer(number, 0, MAX_ENERGY, "total")
    for digest in (leaf.last, leaf.log_root, *([] if leaf.conflict is None else [leaf.conflict])):
        records.octets(digest, records.DIGEST_BYTES, "digest")
    return leaf


def _check_summary(
    where: tuple[bytes, WideGenesis, bytes, Region], section: list[Any]
) -> tuple[Summary, bytes | None]:
    """Check the newest summary; gives it and the address of the gateway that signed it.

    That it is in effect follows from the chain, whose rules checked its signature by the keys of
    that day. Those may have been replaced since, and nothing here shows former ones: then the file
    holds the payload alone, and who signed it is not shown.
    """
    app_hash, genesis, region, leaf = where
    raw, proof, gateways, gateways_proof = section
    if type(raw) is not bytes or type(gateways) not in (bytes, type(None)):
        raise MalformedRecord("a summary or a list of gateways is not bytes")
    envelope = Envelope.parse(raw) if raw[:1] == ENVELOPE_START else None
    payload = raw if envelope is None else envelope.payload
    summary = Summary.decode(payload)
    if payload_digest(payload) != leaf.last or summary.region != region:
        raise BadProof("not the region's newest summary")
    entry = verify_summary(app_hash, region, summary.to_height, None, proof)
    if entry.digest != leaf.last:
        raise BadProof("what is proved is not this summary in effect")
    if envelope is None:
        if gateways is not None or gateways_proof is not None:
            raise BadProof("gateways are shown, and no signature of theirs")
        return summary, None
    verify_gateways(app_hash, region, gateways, gateways_proof)
    key = gateways_of(genesis, region, gateways).get(envelope.kid)
    if key is None:
        raise BadProof("the summary is not signed by a gateway of its region")
    envelope.verify(p256.PublicKey(key))
    return summary, envelope.kid


def gateways_of(genesis: WideGenesis, region: bytes, given: bytes | None) -> dict[bytes, bytes]:
    """Give address -> key of a region's gateways; raises MalformedRecord.

    ``given`` is the leaf of those that operators have named since the genesis, if they have.
    """
    if given is None:
        return addresses(dict(genesis.regions).get(region, ()))
    keys = records.array(cbor.loads(given), 1, 16, "gateways")
    return addresses(tuple(records.octets(key, 33, "gateway key") for key in keys))


# --------------------------------------------------------------------------- the regional chain


@dataclass(frozen=True)
class _Log:
    """The log of a region's heads, as the wide-area chain knows it."""

    region: bytes
    size: int
    root: bytes

    def head(self, payload: Any, path: Any) -> records.Head:
        """Give a head that is in the log; raises MalformedRecord or BadProof."""
        if type(payload) is not bytes or len(payload) > _MAX_PAYLOAD_BYTES:
            raise MalformedRecord("a head is not bytes")
        head = records.decode(payload)
        if not isinstance(head, records.Head) or head.chain != self.region:
            raise BadProof("not a head of this region")
        digest = payload_digest(payload)
        merkle.verify_inclusion(self.root, digest, head.height - 1, self.size, path)
        return head


def _check_reading(log: _Log, section: list[Any]) -> SettledReading:
    """Check a reading in its block, its signature, and its result in the last of the heads."""
    heads, raw, index, path, result, key = section
    found = [
        log.head(*records.array(item, 2, 2, "head")) for item in records.array(heads, 1, 2, "heads")
    ]
    if type(raw) is not bytes:
        raise MalformedRecord("a reading is not bytes")
    envelope = Envelope.parse(raw)
    reading = records.decode(envelope.payload)
    if not isinstance(reading, records.Reading) or reading.chain != log.region:
        raise BadProof("not a reading of this region")
    if address_of(records.octets(key, 33, "public key")) != envelope.kid:
        raise BadProof("the key is not that of the meter that the reading names")
    envelope.verify(p256.PublicKey(key))
    block, last = found[0], found[-1]
    digest = envelope.digest
    merkle.verify_inclusion(block.records_root, digest, index, block.record_count, path)
    if last.height < block.height or (result == [] and len(found) > 1):
        raise BadProof("a head that says nothing of the reading")
    about = (digest, envelope.kid, reading, block.height)
    if result == []:
        return SettledReading(*about, None, tally.OPEN, 0, 0, 0)
    outcome, drawn, accepts, rejects = _check_result(last, digest, result)
    return SettledReading(*about, last.height, outcome, drawn, accepts, rejects)


def _last_block(found: SettledReading | None) -> int:
    assert found is not None  # MEMBER needs READING
    return found.block if found.settled is None else found.settled


def _check_result(head: records.Head, digest: bytes, result: Any) -> tuple[int, int, int, int]:
    """Check what a block decided of a reading; gives outcome, seats drawn, accepts, rejects.

    A head does not tell how many results there are, so the place is the prover's word. That the
    leaf is in the tree, which is all that is asked, follows all the same: inner nodes and leaves
    are never the same hash (SPEC 14.1).
    """
    *counts, index, size, path = records.array(result, 8, 8, "result")
    for count in counts:
        records.integer(count, 0, 0xFFFF, "count")
    if counts[0] not in tally.OUTCOME_NAMES:
        raise MalformedRecord("no such outcome")
    merkle.verify_inclusion(head.results_root, cbor.dumps([digest, *counts]), index, size, path)
    return counts[0], counts[1], counts[2], counts[3]


def _check_member(log: _Log, key: bytes, section: list[Any]) -> Membership:
    payload, path, value, proof = section
    head = log.head(payload, path)
    if type(value) is not bytes:
        raise MalformedRecord("a member's leaf is not bytes")
    verify_leaf(head.state_root, member_key(address_of(key)), value, Proof.decode(proof))
    fields = records.array(cbor.loads(value), 12, 12, "member's leaf")
    if fields[0] != key or type(fields[5]) is not bool:
        raise BadProof("the member's leaf does not name the key of the reading")
    return Membership(head.height, records.text(fields[1], 32, "cluster"), fields[5])
