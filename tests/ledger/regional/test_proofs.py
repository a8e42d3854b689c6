"""What a region answers can be checked under an application hash, and nothing else passes."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.engine.abci import Answer, Refused
from ledger.protocol import cbor
from ledger.protocol.errors import BadProof
from ledger.regional import codes, proofs
from ledger.regional.application import RegionalApplication
from tests.ledger.regional.generate import Play, eventful
from tests.ledger.regional.lab import FIRST, Lab


@pytest.fixture(scope="module", params=[(1, 0), (3, 4)])
def play(request: pytest.FixtureRequest) -> Iterator[Play]:
    """Regions of one node, and of several with waiting records and orders."""
    gateways, validators = request.param
    play = eventful(rounds=30, gateways=gateways, validators=validators)
    ahead = play.region.reading(play.region.meters[4], play.round)
    closes = [play.region.close(play.round)] if gateways > 1 else []
    play.execute([ahead, *closes])
    yield play
    play.close()


def head_key(height: int) -> bytes:
    return height.to_bytes(8, "big")


def ask_head(app: RegionalApplication, height: int) -> Answer:
    return app.query("head", head_key(height))


def test_every_head_is_proved(play: Play) -> None:
    for height in range(1, play.app.height + 1):
        answer = ask_head(play.app, height)
        assert answer.app_hash == play.app.app_hash
        assert answer.height == play.node.height
        assert answer.value == play.app.blocks.head_payload(height)
        # the proof is a value of the CBOR profile
        proof = cbor.loads(cbor.dumps(answer.proof))
        head = proofs.verify_head(play.app.app_hash, height, answer.value, proof)
        assert head.payload() == answer.value


def test_head_that_is_not_there_has_no_proof(play: Play) -> None:
    for height in (0, play.app.height + 1, (1 << 64) - 1):
        answer = ask_head(play.app, height)
        assert (answer.value, answer.proof) == (None, [])
        with pytest.raises(BadProof):
            proofs.verify_head(play.app.app_hash, height, answer.value, answer.proof)


def test_members_and_strangers_are_proved(play: Play) -> None:
    for meter in play.region.meters:
        answer = play.app.query("member", meter.address)
        member = proofs.verify_member(
            answer.app_hash, meter.address, answer.value, cbor.loads(cbor.dumps(answer.proof))
        )
        assert member == play.app.state.members.get(meter.address)
        with pytest.raises(BadProof):
            proofs.verify_member(answer.app_hash, meter.address, None, answer.proof)
    answer = play.app.query("member", bytes(16))
    assert answer.value is None
    assert proofs.verify_member(answer.app_hash, bytes(16), None, answer.proof) is None


@pytest.mark.parametrize(
    ("path", "key"),
    [("head", b""), ("head", bytes(9)), ("member", bytes(15)), ("", b""), ("x", b"")],
)
def test_other_queries_are_refused(play: Play, path: str, key: bytes) -> None:
    with pytest.raises(Refused) as refused:
        play.app.query(path, key)
    assert refused.value.code == codes.UNKNOWN_QUERY


def test_before_the_first_block_no_member_can_be_proved() -> None:
    lab = Lab()
    with pytest.raises(Refused):
        lab.app.query("member", lab.region.meters[0].address)
    assert lab.app.query("head", head_key(1)).value is None
    lab.database.close()


def test_answer_between_block_and_commit_fits_the_new_hash() -> None:
    lab = Lab(gateways=3, validators=4)
    lab.close(FIRST)
    result = lab.app.finalize_block(7, [e.raw for e in lab.region.majority(FIRST + 1)])
    answer = lab.app.query("head", head_key(1))
    assert (answer.height, answer.app_hash) == (7, result.app_hash)
    proofs.verify_head(result.app_hash, 1, answer.value, answer.proof)
    lab.app.commit()
    lab.database.close()


def test_any_changed_part_is_found(play: Play) -> None:
    app, height = play.app, play.app.height - 3
    answer = ask_head(app, height)
    assert answer.value is not None
    other = app.blocks.head_payload(height - 1) or b""
    rest, newest, path = answer.proof
    assert isinstance(rest, bytes)
    assert isinstance(path, list)
    for app_hash, at, value, proof in [
        (bytes(32), height, answer.value, answer.proof),
        (app.app_hash, height + 1, answer.value, answer.proof),
        (app.app_hash, height, other, answer.proof),
        (app.app_hash, height, answer.value, [rest[:-1], newest, path]),
        (app.app_hash, height, answer.value, [rest + bytes(32), newest, path]),
        (app.app_hash, height, answer.value, [rest, other, path]),
        (app.app_hash, height, answer.value, [rest, newest, path[:-1]]),
        (app.app_hash, height, answer.value, [rest, newest, [*path, bytes(32)]]),
        (app.app_hash, height, answer.value, [rest, newest]),
        (app.app_hash, app.height, newest, [rest, newest, path]),
    ]:
        with pytest.raises(BadProof):
            proofs.verify_head(app_hash, at, value, proof)  # type: ignore[arg-type]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=40) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)


@given(values, values, values)
def test_anything_is_a_proof_or_one_declared_error(value, proof, place) -> None:
    for app_hash in (bytes(32), value):
        for check in (proofs.verify_head, proofs.verify_member):
            with pytest.raises(BadProof):
                check(app_hash, place, value, proof)
