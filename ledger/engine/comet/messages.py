"""The requests and responses of ABCI 2.0 (CometBFT v0.38, proto/tendermint/abci/types.proto).

Field numbers are those of that file. Requests declare the fields that a node reads, responses the
ones that it writes; the others are skipped or left at their defaults.
"""

from ledger.protobuf import (
    BYTES,
    ENUM,
    INT64,
    LENGTH,
    TEXT,
    UINT32,
    UINT64,
    MalformedMessage,
    Message,
    Timestamp,
    delimited,
    fields,
    many,
    message,
    one,
    parse,
    uvarint,
)
from ledger.protocol.cose import ADDRESS_BYTES, MAX_RECORD_BYTES, SIGNATURE_BYTES, join

NEW, RECHECK = 0, 1
"""RequestCheckTx.type"""
ACCEPT, REJECT = 1, 2
"""ProposalStatus and VerifyStatus"""
_SMALLEST = join(bytes(ADDRESS_BYTES), b"", bytes(SIGNATURE_BYTES)).raw
TX_BYTES = range(len(_SMALLEST), MAX_RECORD_BYTES + 1)
"""How long a transaction can be: the envelope of a record, from one of an empty payload on."""

# ----------------------------------------------------------------------- what both sides hold


@message
class PublicKey(Message):
    """tendermint.crypto.PublicKey; of its kinds only Ed25519."""

    ed25519: bytes = one(1, BYTES)


@message
class ValidatorUpdate(Message):
    """A validator and its power, 0 to remove it."""

    pub_key: PublicKey = one(1, PublicKey, always=True)
    power: int = one(2, INT64)


@message
class Validator(Message):
    """A validator by its address, the first 20 bytes of SHA-256 of its key."""

    address: bytes = one(1, BYTES)
    power: int = one(3, INT64)


@message
class Misbehavior(Message):
    """What a validator did wrong; time and total power (4, 5) are not read."""

    type: int = one(1, ENUM)
    validator: Validator = one(2, Validator, always=True)
    height: int = one(3, INT64)


@message
class VersionParams(Message):
    """tendermint.types.VersionParams."""

    app: int = one(1, UINT64)


@message
class ConsensusParams(Message):
    """tendermint.types.ConsensusParams; a part that is left out stays as it was."""

    version: VersionParams | None = one(4, VersionParams)


@message
class Snapshot(Message):
    """A state that another node may start from."""

    height: int = one(1, UINT64)
    format: int = one(2, UINT32)
    chunks: int = one(3, UINT32)
    hash: bytes = one(4, BYTES)
    metadata: bytes = one(5, BYTES)


# ----------------------------------------------------------------------------------- requests


@message
class RequestEcho(Message):
    """Asks for its text back."""

    message: bytes = one(1, BYTES)


@message
class RequestFlush(Message):
    """Asks for everything that is answered so far."""


@message
class RequestInfo(Message):
    """Asks where the application stands."""

    version: str = one(1, TEXT)
    block_version: int = one(2, UINT64)
    p2p_version: int = one(3, UINT64)
    abci_version: str = one(4, TEXT)


@message
class RequestInitChain(Message):
    """Tells what the genesis file says."""

    chain_id: str = one(2, TEXT)
    validators: tuple[ValidatorUpdate, ...] = many(4, ValidatorUpdate)
    app_state_bytes: bytes = one(5, BYTES)
    initial_height: int = one(6, INT64)


@message
class RequestQuery(Message):
    """Asks for a value; the path is text of anybody and need not be UTF-8."""

    data: bytes = one(1, BYTES)
    path: bytes = one(2, BYTES)
    height: int = one(3, INT64)


@message
class RequestCheckTx(Message):
    """Asks whether a transaction may enter, or stay in, the mempool."""

    tx: bytes = one(1, BYTES)
    type: int = one(2, ENUM)


@message
class RequestCommit(Message):
    """Asks to make the block durable."""


@message
class RequestListSnapshots(Message):
    """Asks what another node could start from."""


@message
class RequestOfferSnapshot(Message):
    """Offers a snapshot that peers have, with the application hash that a light client trusts."""

    snapshot: Snapshot | None = one(1, Snapshot)
    app_hash: bytes = one(2, BYTES)


@message
class RequestLoadSnapshotChunk(Message):
    """Asks for a piece of an own snapshot."""

    height: int = one(1, UINT64)
    format: int = one(2, UINT32)
    chunk: int = one(3, UINT32)


@message
class RequestApplySnapshotChunk(Message):
    """Hands over a piece of the snapshot taken up, and who sent it."""

    index: int = one(1, UINT32)
    chunk: bytes = one(2, BYTES)
    sender: str = one(3, TEXT)


@message
class RequestPrepareProposal(Message):
    """Asks the proposer to choose the transactions of a block."""

    max_tx_bytes: int = one(1, INT64)
    txs: tuple[bytes, ...] = many(2, BYTES)
    height: int = one(5, INT64)


@message
class RequestProcessProposal(Message):
    """Asks a validator to judge a proposed block."""

    txs: tuple[bytes, ...] = many(1, BYTES)
    height: int = one(5, INT64)


@message
class HopelessProposal(Message):
    """Stands for a RequestProcessProposal that holds what is no record by its length alone.

    A block of 2 MiB has room for a million empty transactions. CometBFT holds a proposal to the
    genesis' max_bytes, which bounds the number of those that are long enough.
    """


@message
class RequestExtendVote(Message):
    """Asks what to add to a vote; only where vote extensions are switched on."""

    height: int = one(2, INT64)


@message
class RequestVerifyVoteExtension(Message):
    """Asks to judge what another validator added to its vote."""

    vote_extension: bytes = one(4, BYTES)


@message
class RequestFinalizeBlock(Message):
    """Hands over a decided block."""

    txs: tuple[bytes, ...] = many(1, BYTES)
    misbehavior: tuple[Misbehavior, ...] = many(3, Misbehavior)
    height: int = one(5, INT64)
    time: Timestamp = one(6, Timestamp, always=True)
    proposer_address: bytes = one(8, BYTES)


# ---------------------------------------------------------------------------------- responses


@message
class ResponseException(Message):
    """Ends the connection: CometBFT logs the sentence and stops."""

    error: str = one(1, TEXT)


@message
class ResponseEcho(Message):
    """The text of the request."""

    message: bytes = one(1, BYTES)


@message
class ResponseFlush(Message):
    """Everything before it is answered."""


@message
class ResponseInfo(Message):
    """Where the application stands."""

    data: str = one(1, TEXT)
    version: str = one(2, TEXT)
    app_version: int = one(3, UINT64)
    last_block_height: int = one(4, INT64)
    last_block_app_hash: bytes = one(5, BYTES)


@message
class ResponseInitChain(Message):
    """The hash before the first block; no validators: the genesis file's stand."""

    consensus_params: ConsensusParams | None = one(1, ConsensusParams)
    app_hash: bytes = one(3, BYTES)


@message
class ResponseQuery(Message):
    """The answer to a query."""

    code: int = one(1, UINT32)
    log: str = one(3, TEXT)
    value: bytes = one(7, BYTES)
    height: int = one(9, INT64)


@message
class ResponseCheckTx(Message):
    """Code 0 lets a transaction in."""

    code: int = one(1, UINT32)
    log: str = one(3, TEXT)


@message
class ResponseCommit(Message):
    """The lowest height of blocks that the application needs; 0: all."""

    retain_height: int = one(3, INT64)


@message
class ResponseListSnapshots(Message):
    """What another node could start from."""

    snapshots: tuple[Snapshot, ...] = many(1, Snapshot)


@message
class ResponseOfferSnapshot(Message):
    """An ``OfferResult``."""

    result: int = one(1, ENUM)


@message
class ResponseLoadSnapshotChunk(Message):
    """The piece asked for; empty where there is none."""

    chunk: bytes = one(1, BYTES)


@message
class ResponseApplySnapshotChunk(Message):
    """An ``ApplyResult``, which pieces to send again and who sent wrong ones."""

    result: int = one(1, ENUM)
    refetch_chunks: tuple[int, ...] = many(2, UINT32)
    reject_senders: tuple[str, ...] = many(3, TEXT)


@message
class ResponsePrepareProposal(Message):
    """The transactions of the block to propose."""

    txs: tuple[bytes, ...] = many(1, BYTES)


@message
class ResponseProcessProposal(Message):
    """ACCEPT or REJECT."""

    status: int = one(1, ENUM)


@message
class ResponseExtendVote(Message):
    """Nothing is added to votes."""

    vote_extension: bytes = one(1, BYTES)


@message
class ResponseVerifyVoteExtension(Message):
    """ACCEPT or REJECT."""

    status: int = one(1, ENUM)


@message
class ExecTxResult(Message):
    """What became of a transaction. The hash of results covers the code and not the log.

    (abci/types/types.go, ``deterministicExecTxResult``: code, data, gas wanted, gas used.)
    """

    code: int = one(1, UINT32)
    log: str = one(3, TEXT)


@message
class ResponseFinalizeBlock(Message):
    """The results in the order of the transactions, and what the block changes."""

    tx_results: tuple[ExecTxResult, ...] = many(2, ExecTxResult)
    validator_updates: tuple[ValidatorUpdate, ...] = many(3, ValidatorUpdate)
    consensus_param_updates: ConsensusParams | None = one(4, ConsensusParams)
    app_hash: bytes = one(5, BYTES)


# ------------------------------------------------------------------------------------- frames

# The one field of message Request, and of Response. Retired: 4, 7, 9, 10 and 5, 8, 10, 11.
_REQUESTS: dict[int, type[Message]] = {
    1: RequestEcho,
    2: RequestFlush,
    3: RequestInfo,
    5: RequestInitChain,
    6: RequestQuery,
    8: RequestCheckTx,
    11: RequestCommit,
    12: RequestListSnapshots,
    13: RequestOfferSnapshot,
    14: RequestLoadSnapshotChunk,
    15: RequestApplySnapshotChunk,
    16: RequestPrepareProposal,
    17: RequestProcessProposal,
    18: RequestExtendVote,
    19: RequestVerifyVoteExtension,
    20: RequestFinalizeBlock,
}
_RESPONSES: dict[type[Message], int] = {
    ResponseException: 1,
    ResponseEcho: 2,
    ResponseFlush: 3,
    ResponseInfo: 4,
    ResponseInitChain: 6,
    ResponseQuery: 7,
    ResponseCheckTx: 9,
    ResponseCommit: 12,
    ResponseListSnapshots: 13,
    ResponseOfferSnapshot: 14,
    ResponseLoadSnapshotChunk: 15,
    ResponseApplySnapshotChunk: 16,
    ResponsePrepareProposal: 17,
    ResponseProcessProposal: 18,
    ResponseExtendVote: 19,
    ResponseVerifyVoteExtension: 20,
    ResponseFinalizeBlock: 21,
}


def decode_request(data: bytes, tx_bytes: range = TX_BYTES) -> Message:
    """Take a message ``Request`` apart: gives the one request in it. Raises MalformedMessage.

    A proposal with a transaction whose length is not in ``tx_bytes`` is a HopelessProposal, and
    read up to that.
    """
    found = parse(data)
    if len(found) != 1:
        raise MalformedMessage(f"a request holds {len(found)} fields instead of one")
    number, wire, value = found[0]
    kind = _REQUESTS.get(number)
    if kind is None or wire != 2:
        raise MalformedMessage(f"request {number} of wire type {wire} is not in ABCI 2.0")
    if kind is RequestProcessProposal:
        txs = (field for field in fields(value) if (field.number, field.wire) == (1, LENGTH))
        if any(len(tx.value) not in tx_bytes for tx in txs):
            return HopelessProposal()
    return kind.decode(value)


def encode_response(response: Message) -> bytes:
    """Give a message ``Response`` with its length before it, as it goes over the socket."""
    tag = uvarint(_RESPONSES[type(response)] << 3 | 2)
    return delimited(tag + delimited(response.encode()))
