"""Checking the wide-area chain's answers against an application hash that one trusts (SPEC 13.5).

The hash comes from a light client of the consensus engine, or from a copy of the chain that one
has audited; never from whoever brings the proof.
"""

from typing import Any

from ledger import trie
from ledger.protocol import cbor, merkle
from ledger.protocol.cose import Envelope
from ledger.protocol.errors import BadProof, MalformedRecord
from ledger.wide.state import LOG_KEY, region_key


def verify_region(app_hash: bytes, region: bytes, value: bytes | None, proof: list[Any]) -> None:
    """Check a region's leaf, or that it has none; raises BadProof."""
    trie.verify(app_hash, region_key(region), value, trie.Proof.decode(proof))


def verify_summary(app_hash: bytes, value: bytes, proof: list[Any]) -> None:
    """Check that an envelope is kept in the chain; raises BadProof.

    It says nothing about whose summary it is: check the signature.
    """
    if type(proof) is not list or len(proof) != 4:
        raise BadProof("a summary's proof is a list of four")
    leaf, leaf_proof, index, path = proof
    trie.verify(app_hash, LOG_KEY, leaf, trie.Proof.decode(leaf_proof))
    if leaf is None:
        raise BadProof("the log is empty")
    try:
        digest = Envelope.parse(value).digest
    except MalformedRecord as e:
        raise BadProof(f"not a summary: {e}") from None
    size, root = cbor.loads(leaf)  # proved, so it is what the application wrote
    merkle.verify_inclusion(root, digest, index, size, path)
