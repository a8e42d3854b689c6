"""Genesis bytes and network changes against vectors from a second writing of docs/SPEC.md."""

import pytest

from ledger.engine.abci import Misbehaviour, Refused
from ledger.genesis import RegionGenesis, WideGenesis, check_validator_key
from ledger.merkle import Log, MemoryNodes
from ledger.network import (
    GenesisValidator,
    NetworkChange,
    NetworkRules,
    decode_record,
    validator_updates,
)
from ledger.protocol import cbor, p256
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import InvalidKey, MalformedRecord
from ledger.wide.entries import (
    Entry,
    decode_misbehaviour,
    encode_misbehaviour,
    entry_of_approval,
    entry_of_misbehaviour,
)
from tests.vector_files import load, unhex

GENESIS, NETWORK = load("genesis"), load("network")


def decode(data: bytes) -> RegionGenesis | WideGenesis:
    kind = cbor.loads(data)[0]
    return (RegionGenesis if kind == 1 else WideGenesis).decode(data)


@pytest.mark.parametrize("case", GENESIS["valid"], ids=lambda case: case["note"])
def test_genesis_of_the_vectors_is_read_and_written(case) -> None:
    data = unhex(case["bytes"])
    genesis = decode(data)
    assert genesis.encode() == data
    assert (genesis.digest.hex(), genesis.chain.hex()) == (case["digest"], case["chain"])
    found = [[v.name, v.public_key.hex(), v.power] for v in genesis.validators]
    assert found == case["validators"]


@pytest.mark.parametrize("case", GENESIS["malformed"], ids=lambda case: case["reason"])
def test_malformed_genesis_is_refused(case) -> None:
    with pytest.raises(MalformedRecord):
        decode(unhex(case["bytes"]))


def test_keys_of_validators() -> None:
    for key in GENESIS["validator_keys"]:
        check_validator_key(unhex(key))


@pytest.mark.parametrize("case", GENESIS["invalid_validator_keys"], ids=lambda c: c["reason"])
def test_what_is_no_key_of_a_validator_is_refused(case) -> None:
    with pytest.raises(InvalidKey):
        check_validator_key(unhex(case["key"]))


@pytest.mark.parametrize("case", NETWORK["valid"], ids=lambda case: case["note"])
def test_change_of_the_vectors_is_read_and_written(case) -> None:
    payload = unhex(case["payload"])
    change = NetworkChange.decode(payload)
    assert change.payload() == payload
    assert change.number == case["fields"]["number"]
    envelope = Envelope.parse(unhex(case["envelope"]))
    envelope.verify(p256.PublicKey(unhex(case["public_key"])))
    assert (envelope.payload, envelope.digest) == (payload, unhex(case["digest"]))


@pytest.mark.parametrize("case", NETWORK["invalid"], ids=lambda case: case["reason"])
def test_invalid_change_is_refused(case) -> None:
    with pytest.raises(MalformedRecord):
        NetworkChange.decode(unhex(case["payload"]))


def test_steps_give_codes_leaves_updates_and_entries() -> None:
    validators = [GenesisValidator(n, unhex(key), power) for n, key, power in NETWORK["validators"]]
    operators = tuple(unhex(key) for key in NETWORK["operators"])
    rules = NetworkRules(
        unhex(NETWORK["chain"]), operators, NETWORK["threshold"], validators, regions=True
    )
    state, log, entries = rules.load(None), Log(MemoryNodes()), []
    for step in NETWORK["steps"]:
        before, code = state, 0
        if "envelope" not in step:
            found = Misbehaviour(step["kind"], unhex(step["address"]), step["height"])
            assert decode_misbehaviour(encode_misbehaviour(found)) == found
            state = rules.punish(state, found)
            entries.append(entry_of_misbehaviour(found))
        else:
            envelope = Envelope.parse(unhex(step["envelope"]))
            change = decode_record(envelope.payload)
            try:
                key = rules.check(state, envelope, change)
            except Refused as refused:
                code = refused.code
            else:
                envelope.verify(p256.PublicKey(key))
                state, _ = rules.approve(state, envelope, change)
                entries.append(entry_of_approval(envelope, change))
        assert code == step["code"], step["note"]
        assert state.encode().hex() == step["leaf"], step["note"]
        updates = [[v.public_key.hex(), v.power] for v in validator_updates(before, state)]
        assert updates == step["updates"], step["note"]
    assert [entry.encode().hex() for entry in entries] == NETWORK["entries"]
    for entry in entries:
        assert Entry.decode(entry.encode()) == entry
        log.append(entry.encode())
    assert log.root().hex() == NETWORK["log_root"]
