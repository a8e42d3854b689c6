"""What is let in and with which code (SPEC 11.3, 11.4), each code with a real record."""

import itertools

import pytest

from ledger.genesis import Parameters
from ledger.protocol import cbor, cose, quantities, records, tally
from ledger.protocol.cose import Envelope
from ledger.regional import codes
from ledger.regional.deliver import MAX_EARLY_A_SIGNER, MAX_PENDING_A_SIGNER
from tests.ledger.regional.generate import Meter, signer
from tests.ledger.regional.lab import FIRST, Lab

_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture
def lab():
    lab = Lab()
    yield lab
    lab.database.close()


def refused(lab: Lab, envelope: Envelope, code: int) -> None:
    """Check that a record gets a code from check_tx and a block, and leaves no trace."""
    before = lab.app.app_hash
    assert lab.node.check_tx(envelope.raw).code == code
    assert lab.deliver(envelope) == [code]
    assert lab.app.app_hash == before


def taken(lab: Lab, envelope: Envelope) -> None:
    assert lab.node.check_tx(envelope.raw).code == codes.OK
    before = lab.app.app_hash
    assert lab.deliver(envelope) == [codes.OK]
    assert lab.app.app_hash != before


def resigned(envelope: Envelope, signature: bytes) -> Envelope:
    return cose.join(envelope.kid, envelope.payload, signature)


def other_signature(signer_, envelope: Envelope) -> Envelope:
    """Sign the same content with another nonce, as a secure element does: valid and low-s."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    key = ec.derive_private_key(int.from_bytes(signer_._secret, "big"), ec.SECP256R1())
    algorithm = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
    r, s = utils.decode_dss_signature(key.sign(envelope.digest, algorithm))
    s = min(s, _N - s)
    return resigned(envelope, r.to_bytes(32, "big") + s.to_bytes(32, "big"))


# ------------------------------------------------------------------------- a node that is behind


def new(lab: Lab, envelope: Envelope) -> int:
    """Give the code of CheckTx for a transaction that comes for the first time."""
    return lab.app.check_tx(envelope.raw, new=True).code


def test_new_ballot_may_name_a_head_that_is_to_be_made_and_is_not_delivered_before(lab):
    lab.honest_round(FIRST)
    ballot = lab.ballot(0, FIRST + 1, [], parent=bytes(32))
    assert new(lab, ballot) == codes.OK
    refused(lab, ballot, codes.UNKNOWN_PARENT)  # checked again, and in a block
    assert new(lab, resigned(ballot, bytes(64))) == codes.BAD_SIGNATURE


def test_ballots_that_name_no_head_are_few_of_each_member_until_the_next_block(lab):
    lab.honest_round(FIRST)
    ballots = [
        lab.ballot(0, FIRST + 1, [(bytes([i]) * 32, records.ACCEPT)], parent=bytes(32))
        for i in range(MAX_EARLY_A_SIGNER + 1)
    ]
    for _ in range(2):
        assert new(lab, resigned(ballots[0], bytes(64))) == codes.BAD_SIGNATURE  # counts nothing
        told = [new(lab, ballot) for ballot in ballots]
        assert told == [codes.OK] * MAX_EARLY_A_SIGNER + [codes.UNKNOWN_PARENT]
        assert new(lab, ballots[0]) == codes.OK  # the same one once more
        assert new(lab, lab.ballot(1, FIRST + 1, [], parent=bytes(32))) == codes.OK
        lab.node.execute([])


@pytest.mark.parametrize("ahead", [0, 3, 1000])
def test_new_ballot_of_a_round_that_is_not_at_hand_names_a_head_that_is_there(lab, ahead):
    lab.honest_round(FIRST)
    ballot = lab.ballot(0, FIRST + ahead, [], parent=bytes(32))
    assert new(lab, ballot) == codes.UNKNOWN_PARENT


# ------------------------------------------------------------------------------------- form


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\xd2\x84", bytes(200), b"\xff" * 1025])
def test_bytes_that_are_no_envelope_are_malformed(lab, raw):
    assert lab.node.check_tx(raw).code == codes.MALFORMED
    assert lab.node.execute([raw]).tx_results[0].code == codes.MALFORMED


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p + b"\x00",
        lambda p: b"\x98" + bytes([p[0] & 31]) + p[1:],  # the array's length in a longer form
        lambda p: p[:1] + b"\x18\x01" + p[2:],  # the type in a longer form
        lambda p: p[:1] + b"\xf5" + p[2:],  # true instead of 1
        lambda p: p[:-1],
    ],
)
def test_payload_outside_the_cbor_profile_is_malformed_though_well_signed(lab, spoil):
    key = lab.region.meters[0].key
    refused(lab, key.seal(spoil(lab.reading(0, FIRST).payload)), codes.MALFORMED)


def test_reading_of_another_region_is_refused(lab):
    other = Lab(name="other")
    reading = lab.reading(0, FIRST)
    foreign = records.decode(reading.payload)
    foreign.chain = other.region.chain
    refused(lab, lab.region.meters[0].key.seal(foreign.payload()), codes.WRONG_CHAIN)
    other.database.close()


def test_records_that_are_no_transactions_are_refused(lab):
    gateway, chain = lab.region.gateways[0], lab.region.chain
    payload = records.Enrolment(chain, gateway.public_key, "x").payload()
    refused(lab, gateway.seal(payload), codes.UNEXPECTED_TYPE)


@pytest.mark.parametrize("kind", [4, 5, 7, 99])
def test_record_types_without_rules_here_are_malformed(lab, kind):
    payload = cbor.dumps([kind, 1, lab.region.chain, 1])
    refused(lab, lab.region.gateways[0].seal(payload), codes.MALFORMED)


# -------------------------------------------------------------------------------- signatures


def test_stranger_is_unknown_for_every_kind_of_record(lab):
    stranger = Meter("stranger", "c0")
    lab.region.meters.append(stranger)
    lab.region.operators.append(stranger.key)
    lab.region.gateways.append(stranger.key)
    refused(lab, lab.reading(5, FIRST), codes.UNKNOWN_SIGNER)
    refused(lab, lab.ballot(5, FIRST), codes.UNKNOWN_SIGNER)
    refused(lab, lab.join(3, 1, signer("new").public_key), codes.UNKNOWN_SIGNER)
    refused(lab, lab.region.close(FIRST, 1), codes.UNKNOWN_SIGNER)


def test_gateway_and_operator_cannot_sign_for_each_other(lab):
    region = lab.region
    close = records.Close(region.chain, FIRST).payload()
    change = records.RegistryChange(region.chain, 1, records.JOIN, signer("n").public_key, "c0")
    refused(lab, region.operators[0].seal(close), codes.UNKNOWN_SIGNER)
    refused(lab, region.meters[0].key.seal(close), codes.UNKNOWN_SIGNER)
    refused(lab, region.gateways[0].seal(change.payload()), codes.UNKNOWN_SIGNER)


def test_signature_of_another_key_is_refused(lab):
    for envelope in (
        lab.reading(0, FIRST),
        lab.ballot(0, FIRST),
        lab.join(0, 1, signer("new").public_key),
        lab.region.close(FIRST),
    ):
        forged = cose.join(
            envelope.kid, envelope.payload, signer("forger").seal(envelope.payload).signature
        )
        refused(lab, forged, codes.BAD_SIGNATURE)
        refused(lab, resigned(envelope, bytes(64)), codes.BAD_SIGNATURE)


def test_high_s_signature_is_refused(lab):
    reading = lab.reading(0, FIRST)
    s = _N - int.from_bytes(reading.signature[32:], "big")
    high = resigned(reading, reading.signature[:32] + s.to_bytes(32, "big"))
    refused(lab, high, codes.BAD_SIGNATURE)
    taken(lab, reading)


# ------------------------------------------------------------------------- duplicates, slots


def test_same_bytes_and_same_content_signed_again_are_duplicates(lab):
    reading, ballot = lab.reading(0, FIRST), lab.ballot(0, FIRST)
    for envelope in (reading, ballot):
        again = other_signature(lab.region.meters[0].key, envelope)
        assert again.raw != envelope.raw
        assert again.digest == envelope.digest
        taken(lab, envelope)
        refused(lab, envelope, codes.DUPLICATE)
        refused(lab, again, codes.DUPLICATE)
    lab.close(FIRST)
    for envelope in (reading, ballot):
        refused(lab, envelope, codes.DUPLICATE)
        refused(lab, other_signature(lab.region.meters[0].key, envelope), codes.DUPLICATE)
    assert not lab.member(0).suspended


def test_readings_out_of_order_late_and_with_gaps_are_each_taken_once(lab):
    readings = {seq: lab.reading(0, FIRST + seq % 3, seq=seq) for seq in (7, 3, 9, 1, 4, 2)}
    order = [7, 3, 9]
    lab.close(FIRST + 5, *(readings[seq] for seq in order))
    lab.close(FIRST + 6, *(readings[seq] for seq in (1, 4, 2)))
    for reading in readings.values():
        refused(lab, reading, codes.DUPLICATE)
    assert lab.member(0).gaps == ((1, 5, 6), (1, 8, 8))
    assert not lab.member(0).suspended


def test_reading_in_a_gap_that_was_given_up_is_stale(lab):
    lab.close(FIRST, *(lab.reading(0, FIRST, seq=2 * i) for i in range(1, 12)))
    assert len(lab.member(0).gaps) == 8
    refused(lab, lab.reading(0, FIRST, seq=1), codes.STALE)
    taken(lab, lab.reading(0, FIRST, seq=21))


def test_journal_of_boots_passed_over_is_taken(lab):
    lab.close(FIRST, lab.reading(0, FIRST, boot=1, seq=5), lab.reading(0, FIRST, boot=4, seq=1))
    late = [lab.reading(0, FIRST, boot=b, seq=s) for b, s in ((1, 6), (2, 1), (3, 9), (3, 1))]
    lab.close(FIRST + 1, *late)
    for reading in late:
        refused(lab, reading, codes.DUPLICATE)


def test_ballot_of_a_round_before_the_newest_ballot_is_stale(lab):
    lab.close(FIRST + 2, lab.ballot(0, FIRST + 2))
    refused(lab, lab.ballot(0, FIRST + 1), codes.STALE)
    assert not lab.member(0).suspended


def test_late_ballots_of_rounds_left_out_are_taken_in_order(lab):
    lab.close(FIRST + 2, *(lab.ballot(0, FIRST + i) for i in (2, 0, 1)))
    assert lab.member(0).ballot_round == FIRST + 2


def test_ballot_that_names_an_unknown_head_is_refused(lab):
    lab.close(FIRST)
    refused(lab, lab.ballot(0, FIRST + 1, parent=bytes(32)), codes.UNKNOWN_PARENT)
    # SPEC 3.7: a head is named by the digest of its payload, not of its Sig_structure
    payload = lab.app.blocks.head_payload(1)
    wrong = lab.region.gateways[0].seal(payload).digest
    refused(lab, lab.ballot(0, FIRST + 1, parent=wrong), codes.UNKNOWN_PARENT)
    taken(lab, lab.ballot(0, FIRST + 1, parent=lab.region.genesis.digest))


# ------------------------------------------------------------------------------ equivocation


def twin(lab: Lab, meter: int, round_: int = FIRST, power: int = 2000) -> Envelope:
    return lab.reading(meter, round_, power=power)


def test_two_payloads_for_a_slot_in_one_block_are_evidence(lab):
    one, two = lab.reading(0, FIRST), twin(lab, 0)
    block = lab.close(FIRST, one, two, *lab.ballots(FIRST, [one, two], voters=range(1, 5)))
    assert lab.outcome(one) == lab.outcome(two) == tally.EQUIVOCATED
    stored = lab.app.blocks.records_of(block.head.height)
    assert one.raw in stored
    assert two.raw in stored
    assert lab.member(0).suspended
    assert lab.member(0).active_until == FIRST + 1
    assert not any(lab.member(i).suspended for i in range(1, 5))


def test_order_of_delivery_does_not_matter_for_evidence():
    heads = set()
    for order in itertools.permutations(range(4)):
        lab = Lab()
        one, two = lab.reading(0, FIRST), twin(lab, 0)
        other = lab.reading(1, FIRST)
        envelopes = [one, two, other, lab.ballot(2, FIRST, [(one, 1), (other, 1)])]
        lab.close(FIRST, *(envelopes[i] for i in order))
        heads.add(lab.app.last_digest)
        lab.database.close()
    assert len(heads) == 1


def test_second_payload_in_a_later_block_ends_the_open_first_one_too(lab):
    one, two = lab.reading(0, FIRST), twin(lab, 0)
    lab.close(FIRST, one, lab.ballot(1, FIRST, [(one, 1)]))
    assert lab.outcome(one) == tally.OPEN
    # the votes that would settle it come with the block that brings the evidence
    lab.close(FIRST + 1, two, *lab.ballots(FIRST + 1, [one, two], voters=range(2, 5)))
    assert [row[1] for row in lab.results(one)] == [tally.OPEN, tally.EQUIVOCATED]
    assert lab.outcome(two) == tally.EQUIVOCATED
    assert lab.member(0).suspended
    assert len(lab.app.state.open) == 0


def test_second_payload_does_not_undo_what_is_accepted(lab):
    one, two = lab.reading(0, FIRST), twin(lab, 0)
    lab.close(FIRST, one, *lab.ballots(FIRST, [one], voters=range(1, 5)))
    lab.close(FIRST + 1, two)
    assert lab.outcome(one) == tally.ACCEPTED
    assert lab.outcome(two) == tally.EQUIVOCATED
    assert lab.member(0).suspended


def test_third_payload_for_a_slot_is_refused(lab):
    lab.deliver(lab.reading(0, FIRST), twin(lab, 0))
    refused(lab, twin(lab, 0, power=3000), codes.STALE)
    lab.close(FIRST)
    # by now the signer is suspended
    refused(lab, twin(lab, 0, power=3000), codes.NOT_ACTIVE)


def test_third_payload_after_one_in_the_chain_and_one_that_waits_is_refused(lab):
    lab.close(FIRST, lab.reading(0, FIRST))
    taken(lab, twin(lab, 0))
    refused(lab, twin(lab, 0, power=3000), codes.STALE)


def test_two_ballots_for_a_round_in_one_block_are_evidence_and_count_nothing(lab):
    reading = lab.reading(1, FIRST)
    first, second = lab.ballot(0, FIRST, [(reading, 1)]), lab.ballot(0, FIRST)
    lab.close(FIRST, reading, first, second, lab.ballot(2, FIRST, [(reading, 1)]))
    assert lab.results(reading)[-1][2:] == (4, 1, 0, 0)
    assert lab.member(0).suspended
    assert lab.app.blocks.records_of(1).count(first.raw) == 1
    assert lab.app.blocks.records_of(1).count(second.raw) == 1


def test_second_ballot_for_a_round_in_a_later_block_is_evidence(lab):
    reading = lab.reading(1, FIRST)
    lab.close(FIRST, reading, lab.ballot(0, FIRST, [(reading, 1)]))
    second = lab.ballot(0, FIRST, [(reading, 16)])
    lab.close(FIRST + 1, second, lab.ballot(2, FIRST + 1, [(reading, 1)]))
    assert lab.member(0).suspended
    assert lab.app.state.open.get(reading.digest).votes == {
        lab.region.meters[0].address: 1,
        lab.region.meters[2].address: 1,
    }


def test_equivocation_disturbs_nobody_else():
    ends = []
    for evidence in (False, True):
        lab = Lab()
        thief = [lab.reading(0, FIRST)] + ([twin(lab, 0)] if evidence else [])
        others = [lab.reading(i, FIRST) for i in range(1, 5)]
        lab.close(FIRST, *thief, *others, *lab.ballots(FIRST, others, voters=range(1, 5)))
        ends.append(([lab.results(e)[-1][1:] for e in others], lab.member(1), lab.member(4)))
        lab.database.close()
    assert ends[0] == ends[1]


def test_two_signatures_of_one_payload_are_no_evidence_in_one_block(lab):
    reading = lab.reading(0, FIRST)
    again = other_signature(lab.region.meters[0].key, reading)
    assert lab.deliver(reading, again, lab.region.close(FIRST)) == [0, codes.DUPLICATE, 0]
    assert not lab.member(0).suspended


# ------------------------------------------------------------------------- members, suspension


def test_suspended_meter_is_refused_from_the_next_round_on(lab):
    lab.close(FIRST, lab.reading(0, FIRST), twin(lab, 0))
    refused(lab, lab.reading(0, FIRST + 1), codes.NOT_ACTIVE)
    refused(lab, lab.ballot(0, FIRST + 1), codes.NOT_ACTIVE)
    # late records of the rounds before are refused too: nothing of it counts any more
    refused(lab, lab.reading(0, FIRST, seq=50), codes.NOT_ACTIVE)


def test_waiting_records_of_a_meter_that_is_suspended_meanwhile_are_dropped(lab):
    other = lab.reading(1, FIRST)
    ahead = lab.reading(0, FIRST + 1)
    vote = lab.ballot(0, FIRST + 1, [(other, 1)])
    lab.close(FIRST, other, lab.reading(0, FIRST), twin(lab, 0), ahead, vote)
    block = lab.close(FIRST + 1)
    assert block.records == ()
    assert lab.outcome(ahead) is None
    assert lab.app.state.open.get(other.digest).votes == {}


def test_meter_that_waits_with_a_wrong_clock_is_not_taken_for_a_liar(lab):
    """Its early slot is given up while the reading waits; that is no second payload."""
    ahead = lab.reading(0, FIRST + 9, seq=1)
    assert lab.deliver(ahead) == [0]
    lab.close(FIRST, *(lab.reading(0, FIRST, seq=2 * i) for i in range(1, 12)))
    lab.close(FIRST + 9)
    assert not lab.member(0).suspended
    assert lab.outcome(ahead) in (None, tally.OPEN)


def test_future_records_wait_for_their_round(lab):
    reading, ballot = lab.reading(0, FIRST + 3), lab.ballot(0, FIRST + 3)
    lab.deliver(reading, ballot)
    for round_ in range(FIRST, FIRST + 3):
        assert lab.close(round_).records == ()
        refused(lab, reading, codes.DUPLICATE)
    lab.reopen()
    assert len(lab.close(FIRST + 3).records) == 2


def test_too_many_waiting_records_of_one_signer_are_refused(lab):
    flood = [lab.reading(0, FIRST + 1, seq=i + 1) for i in range(MAX_PENDING_A_SIGNER)]
    assert set(lab.deliver(*flood)) == {codes.OK}
    refused(lab, lab.reading(0, FIRST, seq=500), codes.FULL)
    refused(lab, lab.ballot(0, FIRST), codes.FULL)
    refused(lab, flood[3], codes.DUPLICATE)
    taken(lab, lab.reading(1, FIRST))
    lab.close(FIRST + 1)
    taken(lab, lab.reading(0, FIRST + 2, seq=500))


def test_close_of_a_closed_or_earlier_round_is_refused(lab):
    lab.close(FIRST + 3)
    for round_ in (FIRST + 3, FIRST, 0):
        refused(lab, lab.region.close(round_), codes.WRONG_ROUND)


def test_round_whose_end_no_head_can_name_is_not_closed():
    lab = Lab(parameters=Parameters(86_400, 11, 8, 5))
    last = ((1 << 40) - 1) // 86_400 - 1
    refused(lab, lab.region.close(records.MAX_ROUND), codes.WRONG_ROUND)
    refused(lab, lab.region.close(last + 1), codes.WRONG_ROUND)
    lab.close(last)
    lab.reopen()
    assert lab.app.last_round == last
    lab.database.close()


def test_reading_of_a_time_that_no_round_can_reach_only_waits(lab):
    lab.deliver(lab.reading(0, FIRST, time=(1 << 40) - 1))
    assert lab.close(FIRST).records == ()
    lab.reopen()
    assert lab.close(FIRST + 1).records == ()


def test_all_limits_of_a_reading_are_let_in(lab):
    values = [(code, (-1) ** code * (1 << 62)) for code in sorted(quantities.BY_CODE)]
    big = lab.reading(0, FIRST, boot=0xFFFFFFFF, seq=0xFFFFFFFF, flags=15, values=values)
    lab.close(FIRST, big, *lab.ballots(FIRST, [big], voters=range(1, 5)))
    assert lab.outcome(big) == tally.ACCEPTED
    lab.reopen()
    refused(lab, big, codes.DUPLICATE)
