"""Which heads a meter holds: gateway's signature, descent, forks, and what is kept."""

from firmware.meter.heads import Fork, Heads
from firmware.meter.identity import Identity
from ledger.protocol import merkle, p256, records
from ledger.protocol.cose import payload_digest
from ledger.protocol.errors import BadProof, BadSignature, MalformedRecord

GENESIS = bytes(range(32))
CHAIN = GENESIS[:8]
GATEWAY = Identity((21).to_bytes(32, "big"))
OTHER = Identity((22).to_bytes(32, "big"))


class Chain:
    """Heads in a row."""

    def __init__(self):
        self.previous = GENESIS
        self.history = []
        self.heads = []

    def grow(self, results=bytes(32), signer=GATEWAY, chain=CHAIN):
        """Sign the next head."""
        height = len(self.history) + 1
        head = records.Head(
            chain,
            height,
            height,
            height * 60,
            self.previous,
            bytes(32),
            1,
            results,
            bytes(32),
            merkle.root(self.history),
        )
        envelope = signer.seal(head.payload())
        self.previous = payload_digest(envelope.payload)
        self.history.append(self.previous)
        self.heads.append(envelope)
        return envelope

    def bridge(self, held, height):
        """Give the proof that the head of ``height`` extends the one held."""
        return held, merkle.inclusion_path(self.history[: height - 1], held - 1)


_key = p256.PublicKey(GATEWAY.public_key, 3)


def make(held=None):
    return Heads(CHAIN, GENESIS, {GATEWAY.address: _key}, held)


def offer(heads, envelope, bridge=None):
    return heads.adopt(envelope, heads.check(envelope), bridge)


def raises(error, function, *arguments):
    try:
        function(*arguments)
    except error as found:
        return type(found) is error
    return False


def test_heads_that_follow_are_held():
    heads, chain = make(), Chain()
    for height in (1, 2, 3):
        assert offer(heads, chain.grow())
        assert (heads.height, heads.digest) == (height, chain.previous)


def test_first_head_may_be_of_any_height():
    heads, chain = make(), Chain()
    for _ in range(5):
        chain.grow()
    assert offer(heads, chain.heads[4])
    assert heads.height == 5


def test_same_or_older_head_changes_nothing():
    heads, chain = make(), Chain()
    for _ in range(3):
        offer(heads, chain.grow())
    for envelope in chain.heads:
        assert not offer(heads, envelope)
    assert heads.height == 3


def test_gap_needs_a_bridge():
    heads, chain = make(), Chain()
    offer(heads, chain.grow())
    for _ in range(4):
        chain.grow()
    newest = chain.heads[-1]
    assert raises(BadProof, offer, heads, newest)
    assert raises(BadProof, offer, heads, newest, (2, chain.bridge(2, 5)[1]))
    assert heads.height == 1
    assert offer(heads, newest, chain.bridge(1, 5))
    assert heads.height == 5


def test_bridge_of_another_history_is_refused():
    heads, mine, other = make(), Chain(), Chain()
    offer(heads, mine.grow())
    for _ in range(4):
        other.grow(b"\x01" * 32)
    assert raises(BadProof, offer, heads, other.heads[3], other.bridge(1, 4))
    assert heads.height == 1


def test_second_head_of_a_height_is_a_fork():
    heads, chain, other = make(), Chain(), Chain()
    offer(heads, chain.grow())
    offer(heads, chain.grow())
    assert raises(Fork, offer, heads, other.grow(b"\x01" * 32))
    assert (heads.height, heads.digest) == (2, chain.previous)


def test_next_head_that_does_not_follow_is_a_fork():
    heads, chain, other = make(), Chain(), Chain()
    offer(heads, chain.grow())
    other.grow(b"\x01" * 32)
    assert raises(Fork, offer, heads, other.grow())
    assert heads.height == 1


def test_same_payload_signed_by_another_gateway_is_the_same_head():
    both = {GATEWAY.address: _key, OTHER.address: p256.PublicKey(OTHER.public_key, 3)}
    heads, mine, theirs = Heads(CHAIN, GENESIS, both), Chain(), Chain()
    assert offer(heads, mine.grow())
    again = theirs.grow(signer=OTHER)
    assert again.raw != mine.heads[0].raw
    assert not offer(heads, again)  # neither newer nor a fork
    assert heads.digest == mine.previous
    mine.grow()
    assert offer(heads, theirs.grow(signer=OTHER))
    assert (heads.height, heads.digest) == (2, mine.previous)


def test_second_head_of_a_height_is_a_fork_whoever_of_the_gateways_signed_it():
    both = {GATEWAY.address: _key, OTHER.address: p256.PublicKey(OTHER.public_key, 3)}
    heads, mine, theirs = Heads(CHAIN, GENESIS, both), Chain(), Chain()
    assert offer(heads, mine.grow())
    assert raises(Fork, offer, heads, theirs.grow(b"\x01" * 32, signer=OTHER))


def test_head_of_another_key_is_refused():
    heads = make()
    assert raises(BadSignature, offer, heads, Chain().grow(signer=OTHER))
    assert heads.height == 0


def test_altered_head_is_refused():
    heads = make()
    good = Chain().grow()
    payload = good.payload[:-1] + bytes((good.payload[-1] ^ 1,))
    from ledger.protocol import cose

    forged = cose.join(GATEWAY.address, payload, good.signature)
    assert raises(BadSignature, offer, heads, forged)


def test_head_of_another_region_is_refused():
    assert raises(MalformedRecord, offer, make(), Chain().grow(chain=bytes(8)))


def test_record_that_is_no_head_is_refused():
    envelope = GATEWAY.seal(records.Close(CHAIN, 1).payload())
    assert raises(MalformedRecord, offer, make(), envelope)


def test_what_was_held_before_a_restart_still_binds():
    chain, other = Chain(), Chain()
    chain.grow()
    heads = make((1, chain.previous))
    assert raises(Fork, offer, heads, other.grow(b"\x01" * 32))
    assert offer(heads, chain.grow())
