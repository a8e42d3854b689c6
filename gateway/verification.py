"""What may enter the round book: form, topic, signer and signature, checked on all cores.

The cheap rules come first, before a message costs a write: size, topic, envelope, region, type,
the signer's place in the registry, and that it wrote to its own topic. Signatures are checked in
batches by threads (the curve's library lets the interpreter go meanwhile) and each one once: who
passes is admitted to the ledger's ``Verifier``.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from gateway.queue import Message
from ledger.protocol import records, topics
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import BadSignature, InvalidKey, MalformedRecord
from ledger.verify import Verifier

_SMALLEST_SHARE = 16  # signatures; below it a thread costs more than it brings

Record = records.Reading | records.Ballot | records.RegistryChange

# why a message is refused before any signature is looked at; codes of the chain keep their names
MALFORMED = "malformed"
WRONG_CHAIN = "wrong-chain"
UNEXPECTED_TYPE = "unexpected-type"
WRONG_TOPIC = "wrong-topic"
UNKNOWN_SIGNER = "unknown-signer"
BAD_SIGNATURE = "bad-signature"

_KINDS = {topics.READING: records.READING, topics.BALLOT: records.BALLOT}


class Rejected(Exception):
    """A message is refused; ``code`` is counted, ``log`` is a sentence for people."""

    def __init__(self, code: str, log: str) -> None:
        super().__init__(log)
        self.code = code
        self.log = log


class Candidate(NamedTuple):
    """A well-formed record of somebody entitled; its signature is still to be checked."""

    envelope: Envelope
    record: Record
    public_key: bytes
    cluster: str


class Signer(NamedTuple):
    """Who may sign: compressed key, and the cluster of a member ("" for an operator)."""

    public_key: bytes
    cluster: str


def inspect(
    message: Message,
    chain: bytes,
    member: Callable[[bytes], Signer | None],
    operator: Callable[[bytes], Signer | None],
) -> Candidate:
    """Apply the cheap rules to the message of a record; raises Rejected."""
    try:
        envelope = Envelope.parse(message.payload)
        record = records.decode(envelope.payload)
    except MalformedRecord as e:
        raise Rejected(MALFORMED, str(e)) from None
    if record.chain != chain:
        raise Rejected(WRONG_CHAIN, "the record belongs to another region")
    kind = ""
    if message.topic == topics.registry(chain):
        if not isinstance(record, records.RegistryChange):
            raise Rejected(UNEXPECTED_TYPE, "only registry changes go to the registry topic")
        signer = operator(envelope.kid)
    else:
        kind = message.topic.rsplit("/", 1)[-1]
        if _KINDS.get(kind) != record.TYPE:
            raise Rejected(UNEXPECTED_TYPE, f"a record of type {record.TYPE} came as {kind!r}")
        signer = member(envelope.kid)
    if signer is None:
        raise Rejected(UNKNOWN_SIGNER, f"{envelope.kid.hex()} may not sign this")
    if signer.cluster and message.topic != topics.meter(chain, signer.cluster, envelope.kid, kind):
        raise Rejected(WRONG_TOPIC, "the topic is not the signer's own")
    return Candidate(envelope, record, signer.public_key, signer.cluster)


class SignatureChecks:
    """Checks signatures on all cores; ``verifier`` keeps the keys and what passed."""

    def __init__(self, verifier: Verifier, workers: int | None = None) -> None:
        self._verifier = verifier
        self._workers = workers or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="verify")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def check(self, candidates: Sequence[Candidate]) -> list[bool]:
        """Tell for each candidate whether its signature fits; those that do are admitted."""
        share = max(_SMALLEST_SHARE, -(-len(candidates) // self._workers))
        shares = [candidates[i : i + share] for i in range(0, len(candidates), share)]
        verdicts: list[bool] = []
        for part in self._pool.map(self._check_share, shares):
            verdicts += part
        for candidate, good in zip(candidates, verdicts, strict=True):
            if good:
                self._verifier.admit(candidate.envelope, candidate.record)
        return verdicts

    def _check_share(self, share: Sequence[Candidate]) -> list[bool]:
        return [self._fits(candidate) for candidate in share]

    def _fits(self, candidate: Candidate) -> bool:
        try:
            candidate.envelope.verify(self._verifier.key(candidate.public_key))
        except (BadSignature, InvalidKey):
            return False
        return True
