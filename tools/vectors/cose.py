"""Vectors of the envelope: tests/vectors/cose.json (SPEC section 3)."""

from tools.vectors.wire import (
    ORDER,
    Key,
    Raw,
    cbor,
    digest,
    head,
    long_head,
    protected,
    seal,
    sig_structure,
    sign1,
    signed,
)

_MAX_RECORD_BYTES = 1024
_OVERHEAD = 94  # octets of an envelope around a payload of 256 octets and more
_KEY = Key("envelope")
_OTHER = Key("another")
_PAYLOAD = cbor([8, 1, digest("chain")[:8], 7])


def _valid() -> list[dict[str, object]]:
    sizes = (0, 1, 23, 24, 255, 256, _MAX_RECORD_BYTES - _OVERHEAD)
    cases = [
        {"note": f"payload of {n} octets", **signed(_KEY, bytes(i & 0xFF for i in range(n)))}
        for n in sizes
    ]
    cases.append({"note": "a close order", **signed(_KEY, _PAYLOAD)})
    nonce = int.from_bytes(digest("nonce"), "big") % ORDER
    signature = _KEY.sign_with_nonce(sig_structure(_KEY.address, _PAYLOAD), nonce)
    cases.append(
        {
            "note": "a nonce that is not RFC 6979's: the same digest, so the same record",
            "deterministic": False,
            **signed(_KEY, _PAYLOAD),
            "signature": signature,
            "envelope": sign1(protected(_KEY.address), _PAYLOAD, signature),
        }
    )
    return cases


def _bad_headers() -> list[tuple[str, bytes]]:
    kid = cbor(_KEY.address)
    signature = _KEY.sign(sig_structure(_KEY.address, _PAYLOAD))
    bare = Raw(protected(_KEY.address))

    def of(header: bytes) -> bytes:
        return sign1(header, _PAYLOAD, signature)

    return [
        ("algorithm ES384", of(b"\xa2\x01\x38\x22\x04" + kid)),
        ("header's entries in another order", of(b"\xa2\x04" + kid + b"\x01\x26")),
        ("no kid", of(b"\xa1\x01\x26")),
        ("no algorithm", of(b"\xa1\x04" + kid)),
        ("kid of 15 octets", of(b"\xa2\x01\x26\x04" + cbor(_KEY.address[:15]))),
        ("kid of 17 octets", of(b"\xa2\x01\x26\x04" + cbor(_KEY.address + b"\x00"))),
        ("kid as text", of(b"\xa2\x01\x26\x04\x70" + b"a" * 16)),
        ("kid's length in a long form", of(b"\xa2\x01\x26\x04\x58\x10" + _KEY.address)),
        ("algorithm in a long form", of(b"\xa2\x01\x38\x06\x04" + kid)),
        ("one more header", of(b"\xa3\x01\x26\x04" + kid + b"\x03\x00")),
        ("a critical header", of(b"\xa3\x01\x26\x02\x81\x04\x04" + kid)),
        ("empty protected header", of(b"")),
        ("protected header is a map, not octets", sign1(bare, _PAYLOAD, signature)),
    ]


def _bad_layouts() -> list[tuple[str, bytes]]:
    good = seal(_KEY, _PAYLOAD)
    header = protected(_KEY.address)
    signature = _KEY.sign(sig_structure(_KEY.address, _PAYLOAD))
    payload_at = good.index(cbor(_PAYLOAD))
    before, after = good[:payload_at], good[payload_at + len(cbor(_PAYLOAD)) :]
    n = len(_PAYLOAD)

    def payload(data: bytes) -> bytes:
        return before + data + after

    def unprotected(data: bytes) -> bytes:
        return sign1(header, _PAYLOAD, signature, unprotected=data)

    return [
        ("nothing", b""),
        ("first octet alone", good[:1]),
        ("cut inside the header", good[:20]),
        ("cut before the payload", good[:payload_at]),
        ("cut inside the payload", good[: payload_at + 4]),
        ("last octet missing", good[:-1]),
        ("one octet more", good + b"\x00"),
        ("twice", good + good),
        ("no tag", good[1:]),
        ("tag 17, COSE_Mac0", b"\xd1" + good[1:]),
        ("tag 18 in a long form", b"\xd8\x12" + good[1:]),
        ("tag 18 twice", b"\xd2" + good),
        ("tag 61, CBOR Web Token, outside", b"\xd8\x3d" + good),
        ("array of three", b"\xd2\x83" + good[2:-66]),
        ("array of five", b"\xd2\x85" + good[2:] + b"\x00"),
        ("array's length in a long form", b"\xd2\x98\x04" + good[2:]),
        ("indefinite array", b"\xd2\x9f" + good[2:] + b"\xff"),
        ("unprotected header with kid", unprotected(b"\xa1\x04\x40")),
        ("unprotected header is null", unprotected(b"\xf6")),
        ("unprotected header in a long form", unprotected(b"\xb8\x00")),
        ("payload detached: null", payload(b"\xf6")),
        ("payload as text", payload(head(3, n) + _PAYLOAD)),
        ("payload not wrapped", payload(_PAYLOAD)),
        ("payload's length in a long form", payload(long_head(2, n, 1) + _PAYLOAD)),
        ("payload's length in two octets", payload(long_head(2, n, 2) + _PAYLOAD)),
        ("payload indefinite", payload(b"\x5f" + cbor(_PAYLOAD) + b"\xff")),
        ("payload's length one too small", payload(head(2, n - 1) + _PAYLOAD)),
        ("payload's length one too large", payload(head(2, n + 1) + _PAYLOAD)),
        ("signature of 63 octets", sign1(header, _PAYLOAD, signature[:63])),
        ("signature of 65 octets", sign1(header, _PAYLOAD, signature + b"\x00")),
        ("no signature", sign1(header, _PAYLOAD, b"")),
        ("signature null", sign1(header, _PAYLOAD, None)),
        ("signature's length in a long form", good[:-66] + long_head(2, 64, 2) + signature),
        ("signature as text", good[:-66] + head(3, 64) + b"a" * 64),
        ("longer than 1024 octets", seal(_KEY, bytes(_MAX_RECORD_BYTES - _OVERHEAD + 1))),
    ]


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _bad_signatures() -> list[tuple[str, bytes]]:
    kid, header = _KEY.address, protected(_KEY.address)
    good = _KEY.sign(sig_structure(kid, _PAYLOAD))
    r, s = good[:32], good[32:]
    zero, order = bytes(32), ORDER.to_bytes(32, "big")
    high = (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
    altered = _flip(_PAYLOAD, len(_PAYLOAD) - 1)
    foreign = cbor(["Signature1", header, b"Gridwitness", _PAYLOAD])
    multi = cbor(["Signature", header, b"", _PAYLOAD])
    signatures = [
        ("high s", r + high),
        ("one bit of r", _flip(good, 31)),
        ("one bit of s", _flip(good, 63)),
        ("s before r", s + r),
        ("all zero", zero + zero),
        ("r zero", zero + s),
        ("s zero", r + zero),
        ("r is the order", order + s),
        ("s is the order", r + order),
        ("all ones", b"\xff" * 64),
        ("signed with another key", _OTHER.sign(sig_structure(kid, _PAYLOAD))),
        ("signed for another kid", _KEY.sign(sig_structure(_OTHER.address, _PAYLOAD))),
        ("signed over the payload alone", _KEY.sign(_PAYLOAD)),
        ("signed with external data", _KEY.sign(foreign)),
        ("signed as one of several (COSE_Sign)", _KEY.sign(multi)),
        ("signed over another payload", _KEY.sign(sig_structure(kid, altered))),
    ]
    return [(reason, sign1(header, _PAYLOAD, signature)) for reason, signature in signatures] + [
        ("one bit of the payload", sign1(header, altered, good)),
        ("another kid in the header", sign1(protected(_OTHER.address), _PAYLOAD, good)),
    ]


def cose_file() -> dict[str, object]:
    """Content of cose.json."""
    malformed = _bad_layouts() + _bad_headers()
    signature = [
        {"reason": reason, "public_key": _KEY.public_key, "envelope": raw}
        for reason, raw in _bad_signatures()
    ]
    return {
        "about": "SPEC section 3. Signatures are RFC 6979's unless deterministic is false. "
        "Written by python -m tools.vectors.",
        "valid": _valid(),
        "malformed": [{"reason": reason, "envelope": raw} for reason, raw in malformed],
        "bad_signature": signature,
    }
