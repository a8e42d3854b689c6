"""The one tree of errors that bytes from outside can raise.

A programmer's mistake (a wrong type handed in by our own code) raises what Python raises; it is
never part of this tree.
"""


class ProtocolError(ValueError):
    """Something from outside does not follow docs/SPEC.md."""


class MalformedRecord(ProtocolError):
    """The bytes are not of version 1: wrong CBOR, wrong shape, a field out of its range."""


class BadSignature(ProtocolError):
    """The signature does not fit key and content, is high-s, or is out of range."""


class InvalidKey(ProtocolError):
    """The bytes are not a P-256 key: wrong form, off the curve, or out of range."""


class BadProof(ProtocolError):
    """A Merkle or trie proof does not lead to the root."""


class BadFrame(ProtocolError):
    """A serial frame is damaged: COBS, length or checksum."""
