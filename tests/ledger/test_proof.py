"""Proof files: what they show, and that no altered one shows anything else (SPEC 18)."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import proof, proving
from ledger.findings import Findings
from ledger.genesis import WideGenesis
from ledger.light.client import Client
from ledger.light.types import LightBlock
from ledger.light.verify import Clock, Trusted, UntrustedHeader
from ledger.network import NetworkChange, RegionGateways
from ledger.proof import CHAIN, MEMBER, READING, REGION, SUMMARY, UnknownProof, verify_proof
from ledger.protocol import cbor, merkle, records, tally
from ledger.protocol.cose import Envelope, payload_digest
from ledger.protocol.errors import BadProof, BadSignature, MalformedRecord, ProtocolError
from ledger.proving import Follower, NotProvable, Sections, prove_reading, prove_region
from ledger.region import RegionDirectory
from ledger.regional.state import Member, member_key
from ledger.regional.view import LedgerView, SettledReading
from ledger.trie import Trie
from ledger.wide.summary import Summary
from tests.ledger.light.chain import START_S, Chain
from tests.ledger.light.proofs import FOUR, WideNode, reported_region
from tests.ledger.regional.generate import Play, signer, summaries


@dataclass
class Case:
    """A region that was played and reported, and proofs of it."""

    play: Play
    directory: RegionDirectory
    node: WideNode

    @property
    def region(self) -> bytes:
        return self.play.region.chain

    @property
    def reported(self) -> int:
        return self.node.app.state.region(self.region).to_height

    def wide(self, region: bytes | None = None) -> Sections:
        return prove_region(self.node, self.node.follower(), region or self.region)

    def whole(self, digest: bytes) -> Sections:
        leaf = self.node.app.state.region(self.region)
        return {**self.wide(), **prove_reading(self.directory, digest, leaf)}

    def file(self, sections: Sections) -> bytes:
        return proof.encode(self.node.genesis, sections)

    def check(self, sections: Sections) -> Findings:
        return verify_proof(self.file(sections), self.node.genesis)

    def readings(self, outcome: int) -> list[SettledReading]:
        view = LedgerView(self.directory.regional, 60)
        found = [r for r in view.readings() if r.outcome == outcome and r.height <= self.reported]
        view.close()
        return found


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A region of which all blocks are reported."""
    return Case(*reported_region(tmp_path_factory.mktemp("region"), rounds=30))


@pytest.fixture(scope="module")
def accepted(case: Case) -> Sections:
    return case.whole(case.readings(tally.ACCEPTED)[7].digest)


def test_region_that_has_reported_all_is_what_the_tests_need(case: Case) -> None:
    assert case.reported == case.play.app.height


def test_figures_of_a_region_are_shown(case: Case) -> None:
    found = case.check(case.wide())
    assert found.leaf == case.node.app.state.region(case.region)
    assert found.summary is not None
    assert found.summary.to_height == case.reported
    assert found.gateway == case.play.region.gateways[0].address
    assert found.header.pinned is None
    text = "\n".join(found.sentences())
    assert "more than two thirds" in text
    assert f"{found.leaf.accepted} readings accepted" in text
    assert "CONFLICT" not in text


def test_region_without_a_report_is_shown_to_have_none(case: Case) -> None:
    found = case.check(case.wide(b"another!"))
    assert found.leaf is None
    assert "nothing" in found.sentences()[1]


def test_reading_is_shown_down_to_its_meters_signature(case: Case, accepted: Sections) -> None:
    found = case.check(accepted)
    expected = case.readings(tally.ACCEPTED)[7]
    assert found.reading is not None
    assert found.reading.envelope_digest == expected.digest
    assert (found.reading.block, found.reading.meter) == (expected.height, expected.address)
    assert (found.reading.outcome, found.reading.accepts) == (tally.ACCEPTED, expected.accepts)
    text = "\n".join(found.sentences())
    assert f"accepted by {expected.accepts} of the {expected.drawn}" in text
    assert "voltage 230.0" in text
    assert found.as_json()["reading"]["outcome"] == "accepted"


def test_membership_is_shown_where_the_copy_ends_with_a_report(
    case: Case, accepted: Sections
) -> None:
    found = case.check(accepted)
    assert found.member is not None
    assert found.member.block == case.reported
    assert found.member.cluster == "c0"
    assert "registered in cluster 'c0'" in found.sentences()[-1]


@pytest.mark.parametrize("outcome", [tally.REJECTED, tally.EQUIVOCATED, tally.OPEN])
def test_every_outcome_is_shown(case: Case, outcome: int) -> None:
    found = case.check(case.whole(case.readings(outcome)[0].digest))
    assert found.reading is not None
    assert found.reading.outcome == outcome
    assert tally.OUTCOME_NAMES[outcome] in str(found.as_json())


def test_reading_that_is_settled_later_comes_with_two_heads(tmp_path: Path) -> None:
    case = Case(*reported_region(tmp_path, rounds=40))
    (late,) = case.readings(tally.UNCONFIRMED)
    sections = case.whole(late.digest)
    assert len(sections[READING][0]) == 2
    found = case.check(sections).reading
    assert found is not None
    assert found.settled is not None
    assert found.settled > found.block == late.height
    assert found.outcome == tally.UNCONFIRMED
    with pytest.raises(BadProof, match="says nothing"):
        case.check(_place(sections, READING, 4, []))
    with pytest.raises(BadProof):  # heads the wrong way round
        case.check(_place(sections, READING, 0, sections[READING][0][::-1]))
    case.play.close()


def test_reading_that_a_block_left_open_is_not_called_settled(case: Case) -> None:
    open_ = case.readings(tally.OPEN)[0]
    found = case.check(case.whole(open_.digest))
    assert found.reading is not None
    shown = found.as_json()["reading"]
    assert (shown["settled"], shown["outcome"]) == (None, "open")
    assert shown["open_after"] == found.reading.settled
    told = f"It was still open after block {found.reading.settled}; what became of it later is not"
    assert any(line.startswith(told) for line in found.sentences())
    settled = case.check(case.whole(case.readings(tally.ACCEPTED)[0].digest)).as_json()["reading"]
    assert settled["open_after"] is None
    assert settled["settled"] is not None


def test_membership_before_the_reading_is_not_shown(case: Case) -> None:
    late = next(r for r in case.readings(tally.ACCEPTED) if r.height >= 5)
    accepted = case.whole(late.digest)
    found = case.check(accepted).reading
    assert found is not None
    assert found.settled is not None
    for height, refused in ((found.settled - 1, True), (found.settled, False)):
        sections = {**accepted, MEMBER: _member_after(case, accepted, height)}
        if refused:
            with pytest.raises(BadProof, match="before what is shown of the reading"):
                case.check(sections)
        else:
            member = case.check(sections).member
            assert member is not None
            assert member.block == height


def _member_after(case: Case, sections: Sections, height: int) -> list[Any]:
    view = LedgerView(case.directory.regional, 60)
    regional = proving._Regional(view, case.node.app.state.region(case.region))
    head = regional.head(height)
    view.close()
    address = Envelope.parse(sections[READING][1]).kid
    return [*head, *proving._replayed(case.directory, height, address)]


def test_copy_that_goes_on_shows_membership_by_replaying(tmp_path: Path) -> None:
    case = Case(*reported_region(tmp_path, rounds=33))
    assert case.play.app.height > case.reported
    sections = case.whole(case.readings(tally.ACCEPTED)[0].digest)
    assert MEMBER not in sections
    assert case.check(sections).member is None
    leaf = case.node.app.state.region(case.region)
    replayed = prove_reading(
        case.directory, case.readings(tally.ACCEPTED)[0].digest, leaf, replay=True
    )
    member = case.check({**case.wide(), **replayed}).member
    assert member is not None
    assert (member.block, member.cluster) == (case.reported, "c0")
    newest = case.play.app.blocks.envelopes_of(case.play.app.height)[0]
    with pytest.raises(NotProvable, match="wait for its next summary"):
        case.whole(newest.digest)
    case.play.close()


def test_unknown_reading_is_not_provable(case: Case) -> None:
    with pytest.raises(NotProvable, match="not in this copy"):
        case.whole(bytes(32))


def test_copy_of_another_history_proves_nothing(case: Case) -> None:
    leaf = case.node.app.state.region(case.region)
    with pytest.raises(NotProvable, match="another chain"):
        prove_reading(case.directory, bytes(32), replace(leaf, log_root=bytes(32)))
    with pytest.raises(NotProvable, match="newer copy"):
        prove_reading(case.directory, bytes(32), replace(leaf, to_height=leaf.to_height + 1))


# ------------------------------------------------------------------------------ trust


def test_trusted_height_and_hash_take_the_place_of_the_genesis(case: Case) -> None:
    first = case.node.light_block(2)
    root = Trusted.block(case.node.chain.chain_id, first, first.header.hash)
    follower = Follower(case.node.genesis, Client(root), first)
    data = case.file(prove_region(case.node, follower, case.region))
    found = verify_proof(data, case.node.genesis, (2, first.header.hash))
    assert found.header.pinned == 2
    assert "trusted header at height 2" in found.sentences()[0]
    with pytest.raises(UntrustedHeader, match="not the trusted"):
        verify_proof(data, case.node.genesis, (2, bytes(32)))
    with pytest.raises(UntrustedHeader, match="lead through height 3"):
        verify_proof(data, case.node.genesis, (3, first.header.hash))
    assert verify_proof(data, case.node.genesis).header.pinned is None


def test_proof_of_another_chain_is_refused(case: Case, accepted: Sections) -> None:
    other = replace(case.node.genesis, name="other")
    with pytest.raises(BadProof, match="another chain"):
        verify_proof(case.file(accepted), other)


def test_trust_that_is_too_old_is_refused_where_a_clock_is_given(
    case: Case, accepted: Sections
) -> None:
    data, genesis = case.file(accepted), case.node.genesis
    assert verify_proof(data, genesis, clock=Clock(START_S + 1000))
    with pytest.raises(UntrustedHeader, match="trusting period"):
        verify_proof(data, genesis, clock=Clock(START_S + 10**8))


def test_state_of_a_minority_of_validators_is_refused(case: Case, accepted: Sections) -> None:
    height = len(case.node.chain.app_hashes)
    header = LightBlock.decode(accepted[CHAIN][0][-1]).header
    forged = Chain.signed(header, FOUR, ["a", "b"])
    with pytest.raises(UntrustedHeader, match="20 of 40"):
        case.check({**accepted, CHAIN: [[forged.encode()]]})
    assert header.height == height


# ------------------------------------------------------------------------------ what is refused


def _place(sections: Sections, number: int, place: int, value: Any) -> Sections:
    fields = list(sections[number])
    fields[place] = value
    return {**sections, number: fields}


def test_figures_of_another_region_are_refused(case: Case, accepted: Sections) -> None:
    with pytest.raises(BadProof):
        case.check(_place(case.wide(), REGION, 0, b"another!"))


def test_altered_figures_are_refused(case: Case) -> None:
    sections = case.wide()
    fields = cbor.loads(sections[REGION][1])
    fields[7] += 1
    with pytest.raises(BadProof, match="root"):
        case.check(_place(sections, REGION, 1, cbor.dumps(fields)))


def test_older_summary_is_not_the_newest(case: Case) -> None:
    windows = case.play.app.blocks.windows_after(0)
    answer = case.node.query("summary", case.region + windows[0][0].to_bytes(8, "big"))
    sections = case.wide()
    sections[SUMMARY] = [answer.value, answer.proof, *sections[SUMMARY][2:]]
    with pytest.raises(BadProof, match="newest"):
        case.check(sections)


def test_summary_signed_by_somebody_else_is_refused(case: Case) -> None:
    sections = case.wide()
    payload = Envelope.parse(sections[SUMMARY][0]).payload
    stranger = signer("stranger").seal(payload)
    with pytest.raises(BadProof, match="not signed by a gateway"):
        case.check(_place(sections, SUMMARY, 0, stranger.raw))


def test_summary_with_another_signature_is_refused(case: Case) -> None:
    sections = case.wide()
    raw = bytearray(sections[SUMMARY][0])
    raw[-1] ^= 1
    with pytest.raises(BadSignature):
        case.check(_place(sections, SUMMARY, 0, bytes(raw)))


def test_gateways_that_operators_have_not_named_are_refused(case: Case) -> None:
    sections = case.wide()
    stranger = signer("stranger")
    forged = _place(sections, SUMMARY, 2, cbor.dumps([stranger.public_key]))
    payload = Envelope.parse(sections[SUMMARY][0]).payload
    with pytest.raises(BadProof):
        case.check(_place(forged, SUMMARY, 0, stranger.seal(payload).raw))
    with pytest.raises(BadProof):
        case.check(_place(sections, SUMMARY, 3, sections[REGION][2]))


def test_gateways_that_operators_have_named_since_are_believed(case: Case) -> None:
    operator, gateway = signer("wide operator"), signer("new gateway")
    genesis = replace(case.node.genesis, operators=(operator.public_key,), threshold=1)
    case = Case(replace_wide(case.play, genesis), case.directory, WideNode(genesis))
    *first, last = summaries(case.play)
    for envelope in first:
        assert case.node.execute(envelope.raw) == [0]
    what = RegionGateways(case.region, (gateway.public_key,))
    change = operator.seal(NetworkChange(genesis.chain, 1, what).payload())
    assert case.node.execute(change.raw) == [0]
    # the newest one is of a former gateway, and in effect all the same
    former = case.wide()
    found = case.check(former)
    assert (found.summary, found.gateway) == (Summary.decode(first[-1].payload), None)
    assert "does not name" in found.sentences()[2]
    _assert_no_other_is_shown(case, former, first[-1], last)
    assert case.node.execute(gateway.seal(last.payload).raw) == [0]
    assert case.check(case.wide()).gateway == gateway.address
    hidden = _place(case.wide(), SUMMARY, 2, None)
    with pytest.raises(BadProof):
        case.check(hidden)


def _assert_no_other_is_shown(
    case: Case, sections: Sections, shown: Envelope, other: Envelope
) -> None:
    keys = case.node.query("gateways", case.region)
    signed = [shown.raw, sections[SUMMARY][1], keys.value, keys.proof]
    with pytest.raises(BadProof, match="not signed by a gateway"):  # its key counts no more
        case.check({**sections, SUMMARY: signed})
    with pytest.raises(BadProof, match="newest"):
        case.check(_place(sections, SUMMARY, 0, other.payload))
    with pytest.raises(BadProof):
        case.check(_place(sections, SUMMARY, 1, sections[REGION][2]))
    with pytest.raises(BadProof, match="no signature"):
        case.check(_place(sections, SUMMARY, 3, sections[REGION][2]))


def test_summary_without_its_signature_shows_no_gateway(case: Case) -> None:
    sections = case.wide()
    raw, shown, _, _ = sections[SUMMARY]
    bare = {**sections, SUMMARY: [Envelope.parse(raw).payload, shown, None, None]}
    found = case.check(bare)
    assert found.summary == case.check(sections).summary
    assert found.gateway is None


def replace_wide(play: Play, genesis: WideGenesis) -> Play:
    """Give the same play of a region that reports to another wide-area chain."""
    other = copy(play)
    other.region = copy(play.region)
    other.region.wide_genesis = genesis
    return other


ELSEWHERE = b"elsewher"


def _head_of(case: Case, envelope: Envelope, chain: bytes, state_root: bytes) -> records.Head:
    digest, none = merkle.root([envelope.digest]), bytes(32)
    return records.Head(chain, 1, 1, 60, none, digest, 1, none, state_root, none)


@pytest.mark.parametrize(
    ("of_head", "of_reading", "match"),
    [(ELSEWHERE, None, "head of this region"), (None, ELSEWHERE, "reading of this region")],
)
def test_region_that_commits_itself_to_anothers_blocks_proves_nothing(
    case: Case, of_head: bytes | None, of_reading: bytes | None, match: str
) -> None:
    meter = case.play.region.meters[0].key
    reading = records.Reading(of_reading or case.region, 1, 1, 60, 60, 0, 0, bytes(32), [(1, 1)])
    envelope = meter.seal(reading.payload())
    payload = _head_of(case, envelope, of_head or case.region, bytes(32)).payload()
    log = proof._Log(case.region, 1, merkle.root([payload_digest(payload)]))
    section = [[[payload, []]], envelope.raw, 0, [], [], meter.public_key]
    with pytest.raises(BadProof, match=match):
        proof._check_reading(log, section)


def test_members_leaf_with_another_key_is_refused(case: Case) -> None:
    meter, other = case.play.region.meters[0].key, case.play.region.meters[1].key
    trie = Trie()
    name = member_key(meter.address)
    trie.set(name, Member(other.public_key, "c0", 0, 0).encode())
    head = _head_of(case, meter.seal(b"\x80"), case.region, trie.root())
    log = proof._Log(case.region, 1, merkle.root([payload_digest(head.payload())]))
    section = [head.payload(), [], trie.get(name), trie.prove(name).encode()]
    with pytest.raises(BadProof, match="does not name the key"):
        proof._check_member(log, meter.public_key, section)


def test_reading_with_another_signature_or_key_is_refused(case: Case, accepted: Sections) -> None:
    raw = bytearray(accepted[READING][1])
    raw[-1] ^= 1
    with pytest.raises(BadSignature):
        case.check(_place(accepted, READING, 1, bytes(raw)))
    other = case.play.region.meters[-1].key.public_key
    with pytest.raises(BadProof, match="not that of the meter"):
        case.check(_place(accepted, READING, 5, other))


def test_better_outcome_than_decided_is_refused(case: Case) -> None:
    sections = case.whole(case.readings(tally.REJECTED)[0].digest)
    result = list(sections[READING][4])
    result[0] = tally.ACCEPTED
    with pytest.raises(BadProof, match="root"):
        case.check(_place(sections, READING, 4, result))


def test_result_of_another_reading_is_refused(case: Case, accepted: Sections) -> None:
    other = case.whole(case.readings(tally.REJECTED)[0].digest)
    with pytest.raises(BadProof):
        case.check(
            _place(_place(accepted, READING, 4, other[READING][4]), READING, 0, other[READING][0])
        )


def test_head_that_the_region_has_not_reported_is_refused(case: Case, accepted: Sections) -> None:
    payload, path = accepted[READING][0][0]
    fields = cbor.loads(payload)
    fields[9] = bytes(32)
    with pytest.raises(BadProof):
        case.check(_place(accepted, READING, 0, [[cbor.dumps(fields), path]]))


def test_left_out_result_is_said_not_to_be_shown(case: Case, accepted: Sections) -> None:
    found = case.check(_place(accepted, READING, 4, []))
    assert found.reading is not None
    assert found.reading.settled is None
    assert any("not shown" in line for line in found.sentences())


@pytest.mark.parametrize("number", [SUMMARY, MEMBER])
def test_sections_that_may_be_left_out_show_less(
    case: Case, accepted: Sections, number: int
) -> None:
    rest = {n: fields for n, fields in accepted.items() if n != number}
    assert len(case.check(rest).sentences()) == len(case.check(accepted).sentences()) - 1


@pytest.mark.parametrize("number", [CHAIN, REGION, READING])
def test_sections_that_others_need_cannot_be_left_out(
    case: Case, accepted: Sections, number: int
) -> None:
    rest = {n: fields for n, fields in accepted.items() if n != number}
    with pytest.raises(BadProof, match=f"section {number} is missing"):
        case.check(rest)


def _rows(case: Case, sections: Sections) -> list[Any]:
    rows = cbor.loads(case.file(sections))
    assert isinstance(rows, list)
    return rows


REFUSED: dict[str, tuple[Callable[[list[Any]], object], type[ProtocolError], str]] = {
    "other magic": (lambda f: f.__setitem__(0, "grid"), UnknownProof, "not a proof"),
    "newer version": (lambda f: f.__setitem__(1, 2), UnknownProof, "version 2"),
    "true as version": (lambda f: f.__setitem__(1, True), UnknownProof, "not a proof"),
    "unknown section": (lambda f: f[3].append([6, b"x"]), UnknownProof, "section 6"),
    "falling sections": (lambda f: f[3].reverse(), BadProof, "do not rise"),
    "section twice": (lambda f: f[3].append(f[3][-1]), BadProof, "do not rise"),
    "section too long": (lambda f: f[3][0].append(1), BadProof, "fields"),
    "no blocks": (lambda f: f[3][0].__setitem__(1, []), MalformedRecord, "light blocks"),
    "block that is no bytes": (lambda f: f[3][0].__setitem__(1, [1]), MalformedRecord, "block"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_file_of_another_form_is_refused(case: Case, accepted: Sections, name: str) -> None:
    change, error, match = REFUSED[name]
    rows = _rows(case, accepted)
    change(rows)
    with pytest.raises(error, match=match):
        verify_proof(cbor.dumps(rows), case.node.genesis)


def test_too_large_file_is_refused(case: Case) -> None:
    with pytest.raises(UnknownProof, match="larger"):
        verify_proof(bytes(proof.MAX_PROOF_BYTES + 1), case.node.genesis)


def test_light_block_has_one_form(case: Case, accepted: Sections) -> None:
    odd = accepted[CHAIN][0][0] + b"\x1a\x00"  # a field that nobody knows
    with pytest.raises(BadProof, match="form"):
        case.check({**accepted, CHAIN: [[odd]]})


# ------------------------------------------------------------------------------ fuzz


@given(st.binary(max_size=200))
def test_no_bytes_break_the_verifier(case: Case, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        verify_proof(data, case.node.genesis)


@settings(max_examples=300)
@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_any_byte_altered_fails_or_changes_nothing(
    case: Case, accepted: Sections, place: float, mask: int
) -> None:
    data = bytearray(case.file(accepted))
    data[int(place * len(data))] ^= mask
    try:
        found = verify_proof(bytes(data), case.node.genesis)
    except ProtocolError:
        return
    assert found.sentences() == case.check(accepted).sentences()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=400)
@given(path=st.lists(st.integers(0, 40), min_size=1, max_size=6), new=VALUES)
def test_any_value_replaced_fails_or_changes_nothing_false(
    case: Case, accepted: Sections, path: list[int], new: object
) -> None:
    rows = _altered(_rows(case, accepted), [3, *path], new)
    try:
        found = verify_proof(cbor.dumps(rows), case.node.genesis)
    except ProtocolError:
        return
    honest = case.check(accepted).sentences()
    assert set(found.sentences()) <= {*honest, "What became of it is not shown."}


def _altered(value: Any, path: list[int], new: object) -> Any:
    if not path or not isinstance(value, list) or not value:
        return new
    place = path[0] % len(value)
    return [*value[:place], _altered(value[place], path[1:], new), *value[place + 1 :]]


class Hostile(WideNode):
    """A node that answers with another value than it has proved."""

    answer: object = None

    def query(self, path: str, key: bytes) -> Any:
        honest = super().query(path, key)
        return replace(honest, value=self.answer) if path == "region" else honest


@given(st.binary(max_size=80) | VALUES.map(cbor.dumps))
def test_hostile_answers_give_one_of_the_declared_errors(case: Case, value: bytes) -> None:
    node = Hostile.__new__(Hostile)
    node.__dict__.update(case.node.__dict__)
    node.answer = value
    with pytest.raises((ProtocolError, NotProvable)):
        case.check(prove_region(node, node.follower(), case.region))
