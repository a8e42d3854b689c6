"""Deterministic CBOR of Gridwitness (SPEC section 2): the one seam to a CBOR codec.

Values are int (-2**64 .. 2**64-1), bytes, str, bool, None and lists of these, nested at most
``MAX_DEPTH`` deep; definite lengths, shortest forms (RFC 8949 section 4.2.1 without maps, floats
and tags). ``loads`` refuses everything else, trailing bytes included, so a value has one encoding.

Two bytes of hostile CBOR can cost a board a hundred bytes of heap, so decoders of messages name the
most items that their arrays may hold together (``loads(data, most_items)``, SPEC 2.6).

CPython uses cbor2 (C), MicroPython the codec in ``_cbor_pure``; both give the same bytes and
refuse the same bytes.
"""

import sys

try:
    from typing import Union

    Value = Union[int, bytes, str, bool, None, list["Value"]]
except ImportError:
    pass

if sys.implementation.name == "micropython":
    from ledger.protocol._cbor_pure import MAX_DEPTH, dumps, loads
else:
    from ledger.protocol._cbor_cbor2 import MAX_DEPTH, dumps, loads

__all__ = ["MAX_DEPTH", "dumps", "loads"]
