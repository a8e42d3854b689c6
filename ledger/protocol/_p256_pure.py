"""P-256 ECDSA over SHA-256 digests in plain Python, for boards; see ``p256`` for the seam.

Formulas and choices, with what decided them on a Cortex-M0+ (MicroPython multiplies 16-bit digits
by the schoolbook; a reduction costs 2.5 multiplications, and plain ``%`` beats Solinas, Montgomery
and Barrett written in Python): sums of products share one ``%``; points are XYZZ (x = X/ZZ,
y = Y/ZZZ, ZZ^3 = ZZZ^2), where a mixed addition costs 10 multiplications and 9 reductions.
``pow(a, -1, m)`` gives a wrong value on MicroPython, hence extended Euclid.

Scalar multiplication is a comb with signed digits (Lim and Lee 1994; Hedabou, Pinel and Beneteau
2005): a scalar k is written modulo n as a sum of ``±2**i`` with every i in use. Each column of each
block then costs exactly one addition, so half the points suffice for the same teeth, and the
sequence of point operations of ``sign`` and ``public_key`` does not depend on the secret.

What is NOT promised: constant time. The interpreter's integers take time by their values and
allocate, a table row is read at an address that depends on the nonce, and secrets stay in freed
heap memory. Against timing seen from outside, the projective coordinates and both inversions of
``sign`` are blinded by a value derived from the nonce generator, so that their time does not follow
the nonce; how much still leaks was not measured. Power and electromagnetic emission, and induced
faults (RFC 6979 gives the same nonce again; the result is only checked to be on the curve) are not
covered: use a secure element where somebody with an oscilloscope is part of the threat. ``verify``
handles public values only.
"""

from hashlib import sha256

from ledger.protocol import _p256_base
from ledger.protocol.errors import BadSignature, InvalidKey

try:
    from typing import Iterator, Optional, Union

    Bytes = Union[bytes, bytearray, memoryview]
    Point = tuple[int, int, int, int]  # X, Y, ZZ, ZZZ; ZZ = 0 is the point at infinity
    Affine = tuple[int, int]
    Term = tuple[bytearray, "_p256_base.AnyRows", int, int, int]  # see _sum
except ImportError:
    pass

BACKEND = "pure"
DEFAULT_TEETH = 5

# SEC 2 section 2.4.2
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
HALF_N = N >> 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_INVERSE_OF_2 = (N + 1) >> 1
_ROOT_EXPONENT = (P + 1) >> 2

_KEY_BLOCKS = 2
_MIN_TEETH = 3
_MAX_TEETH = 8  # a column's digit fits a byte
_BATCH = 8  # points per step of building; they share one inversion
_TAG_BYTES = 32
_TABLE_CONTEXT = b"gridwitness p256 table 1"

_base_rows: "Optional[_p256_base.AnyRows]" = None


# ------------------------------------------------------------------- bytes in and out


def hmac_sha256(key: bytes, *parts: "Bytes") -> bytes:
    """Give HMAC-SHA256 (RFC 2104) over the parts in a row; the key is at most 64 bytes."""
    if len(key) > 64:
        raise ValueError("HMAC key longer than a block")
    key = key + bytes(64 - len(key))
    inner = sha256(bytes([b ^ 0x36 for b in key]))
    for part in parts:
        inner.update(part)
    outer = sha256(bytes([b ^ 0x5C for b in key]))
    outer.update(inner.digest())
    return outer.digest()


def check_digest(digest: bytes) -> None:
    """Raise ValueError for a digest that is not 32 bytes: our own caller's mistake."""
    if len(digest) != 32:
        raise ValueError("digest is not 32 bytes")


def secret_scalar(secret: bytes) -> int:
    """Give a 32-byte secret as a number in [1, n-1]; raises InvalidKey."""
    if len(secret) != 32:
        raise InvalidKey("secret is not 32 bytes")
    d = int.from_bytes(secret, "big")
    if not 0 < d < N:
        raise InvalidKey("secret is out of range")
    return d


def check_sec1_form(sec1: bytes) -> None:
    """Raise InvalidKey unless the bytes are 02 or 03 and an x below p; the curve is not checked."""
    if len(sec1) != 33 or sec1[0] not in (2, 3):
        raise InvalidKey("public key is not 33 bytes of compressed SEC1")
    if int.from_bytes(sec1[1:], "big") >= P:
        raise InvalidKey("public key's x is not below p")


def split_signature(signature: bytes) -> "tuple[int, int]":
    """Give r and s of a 64-byte signature; raises BadSignature for length, range and high s."""
    if len(signature) != 64:
        raise BadSignature("signature is not 64 bytes")
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    if not (0 < r < N and 0 < s < N):
        raise BadSignature("r or s is out of range")
    if s > HALF_N:
        raise BadSignature("s is high")
    return r, s


def join_signature(r: int, s: int) -> bytes:
    """Give r ‖ s with s made low: of s and n - s the smaller, both of which verify."""
    return r.to_bytes(32, "big") + min(s, N - s).to_bytes(32, "big")


def seal_table(sec1: bytes, teeth: int, rows: "Bytes", key: bytes) -> bytes:
    """Give teeth ‖ rows ‖ HMAC-SHA256 over context, sec1, teeth and rows (``PublicKey.table``)."""
    head = bytes((teeth,))
    return head + rows + hmac_sha256(key, _TABLE_CONTEXT, sec1, head, rows)


def open_table(sec1: bytes, table: bytes, key: bytes) -> int:
    """Check a sealed table and give its teeth; raises InvalidKey for a wrong one."""
    check_sec1_form(sec1)
    view = memoryview(table)
    end = len(table) - _TAG_BYTES
    if end < 1:
        raise InvalidKey("key table is too short")
    tag = hmac_sha256(key, _TABLE_CONTEXT, sec1, view[:1], view[1:end])
    wrong = 0  # no early end: the time would tell how much of a forged tag is right
    for i in range(_TAG_BYTES):
        wrong |= tag[i] ^ view[end + i]
    teeth = table[0]
    if wrong:
        raise InvalidKey("key table is damaged or of another key")
    if teeth and not (_MIN_TEETH <= teeth <= _MAX_TEETH and end - 1 == 64 << teeth):
        raise InvalidKey("key table has another shape")
    return teeth


# ------------------------------------------------------------------------- arithmetic


def _inverse(a: int, m: int) -> int:
    """Give 1/a modulo a prime m by extended Euclid; raises ZeroDivisionError for a = 0."""
    r0, r1 = m, a % m
    if not r1:
        raise ZeroDivisionError("no inverse of 0")
    t0, t1 = 0, 1
    while r1 != 1:
        q, r = divmod(r0, r1)
        r0, r1 = r1, r
        t0, t1 = t1, t0 - q * t1
    return t1 % m


def _inverses(values: "list[int]") -> "list[int]":
    """Give the inverses modulo p of several values for the price of one (Montgomery's trick)."""
    out = []
    product = 1
    for value in values:
        out.append(product)
        product = product * value % P
    rest = _inverse(product, P)
    for i in range(len(values) - 1, -1, -1):
        out[i] = out[i] * rest % P
        rest = rest * values[i] % P
    return out


def _double(x: int, y: int, zz: int, zzz: int) -> "Point":
    """Double a point (dbl-2008-s-1 of the Explicit-Formulas Database with a = -3)."""
    u = y + y
    v = u * u % P
    w = u * v % P
    s = x * v % P
    m = 3 * (x - zz) * (x + zz) % P
    x3 = (m * m - s - s) % P
    return x3, (m * (s - x3) - w * y) % P, v * zz % P, w * zzz % P


def _add(x: int, y: int, zz: int, zzz: int, x2: int, y2: int) -> "Point":
    """Add an affine point to one that is not infinity (madd-2008-s).

    Equal points are doubled; opposite ones come out as infinity by the formula itself (zz = 0).
    """
    h = (x2 * zz - x) % P
    r = (y2 * zzz - y) % P
    if not h and not r:
        return _double(x2, y2, 1, 1)
    hh = h * h % P
    hhh = h * hh % P
    q = x * hh % P
    x3 = (r * r - hhh - q - q) % P
    return x3, (r * (q - x3) - y * hhh) % P, zz * hh % P, zzz * hhh % P


def _decompress(sec1: bytes) -> "Affine":
    """Give the point of a well-formed key; raises InvalidKey if x has none (SEC 1 2.3.4)."""
    x = int.from_bytes(sec1[1:], "big")
    y = pow(((x * x - 3) * x + _B) % P, _ROOT_EXPONENT, P)  # a root, for p is 3 modulo 4
    if _off_curve(x, y):
        raise InvalidKey("public key is not on the curve")
    return x, y if y & 1 == sec1[0] & 1 else P - y


def _off_curve(x: int, y: int) -> bool:
    return (y * y - (x * x - 3) * x - _B) % P != 0


# ------------------------------------------------------------------------------- comb


def _digits(k: int, teeth: int, columns: int) -> bytearray:
    """Write k modulo n as signed bits and give, for each column, its teeth's bits.

    With L = teeth * columns >= 256 and E = (k + 2**L - 1) / 2 modulo n, the bits of E are the
    signs: k = the sum of (2 * E_i - 1) * 2**i over all i < L, modulo n. In column c, tooth j
    has bit j * columns + c.
    """
    e = (k + (1 << (teeth * columns)) - 1) * _INVERSE_OF_2 % N
    bits = e.to_bytes(34, "little")  # the longest: 7 teeth x 38 columns
    out = bytearray(columns)
    for column in range(columns):
        digit = 0
        for at in range(column + (teeth - 1) * columns, -1, -columns):
            digit = digit << 1 | (bits[at >> 3] >> (at & 7) & 1)
        out[column] = digit
    return out


def _entry(rows: "_p256_base.AnyRows", block: int, digit: int, teeth: int) -> "Affine":
    """Give the table's point for a digit; both signs cost the same operations."""
    top = teeth - 1
    positive = digit >> top
    x, y = rows.point(block << top | ((digit ^ (positive - 1)) & ((1 << top) - 1)))
    return x, (P - y, y)[positive]


def _sum(terms: "tuple[Term, ...]", blinding: int) -> "Point":
    """Give the sum of scalar times point over the terms, their doublings shared.

    A term is (digits, rows, teeth, blocks, columns of a block). Coordinates start at z = blinding.
    """
    zz = blinding * blinding % P
    zzz = zz * blinding % P
    acc = (0, 0, 0, 0)
    for column in range(max([term[4] for term in terms]) - 1, -1, -1):
        acc = _double(*acc)
        for digits, rows, teeth, blocks, columns in terms:
            if column < columns:
                for block in range(blocks):
                    x, y = _entry(rows, block, digits[block * columns + column], teeth)
                    if acc[2]:
                        acc = _add(acc[0], acc[1], acc[2], acc[3], x, y)
                    else:
                        acc = (x * zz % P, y * zzz % P, zz, zzz)
    return acc


def _base_term(k: int) -> "Term":
    global _base_rows
    if _base_rows is None:
        _base_rows = _p256_base.open_rows()
    teeth = _p256_base.TEETH
    blocks = _p256_base.BLOCKS
    columns = _p256_base.COLUMNS
    return _digits(k, teeth, blocks * columns), _base_rows, teeth, blocks, columns


def _times_base(k: int, blinding: int) -> "Affine":
    """Give k times the base point for k in [1, n-1].

    Raises RuntimeError where the result is off the curve: memory or flash is failing, and nothing
    made from it may leave.
    """
    x, y, zz, zzz = _sum((_base_term(k),), blinding)
    inverse = _inverse(zzz, P)
    z = zz * inverse % P
    x = x * (z * z % P) % P
    y = y * inverse % P
    if _off_curve(x, y):
        raise RuntimeError("P-256 arithmetic went wrong")
    return x, y


# ------------------------------------------------------------------------------ signing


def _nonces(secret: bytes, digest: bytes) -> "Iterator[tuple[int, int]]":
    """Yield RFC 6979 section 3.2 nonces, each with a blinding value from the generator's key."""
    seed = secret + (int.from_bytes(digest, "big") % N).to_bytes(32, "big")
    v = b"\x01" * 32
    key = bytes(32)
    for mark in (b"\x00", b"\x01"):
        key = hmac_sha256(key, v, mark, seed)
        v = hmac_sha256(key, v)
    while True:
        v = hmac_sha256(key, v)
        k = int.from_bytes(v, "big")
        if 0 < k < N:
            # The generator's own inputs are v and v ‖ 00 (33 bytes): never this one.
            blinding = int.from_bytes(hmac_sha256(key, b"blinding", v), "big")
            yield k, blinding % (N - 1) + 1
        key = hmac_sha256(key, v, b"\x00")
        v = hmac_sha256(key, v)


def public_key(secret: bytes) -> bytes:
    """Give the 33-byte compressed SEC1 public key of a 32-byte secret; raises InvalidKey."""
    d = secret_scalar(secret)
    _, blinding = next(_nonces(secret, bytes(32)))
    x, y = _times_base(d, blinding)
    return bytes((2 + (y & 1),)) + x.to_bytes(32, "big")


def sign(secret: bytes, digest: bytes) -> bytes:
    """Sign a 32-byte SHA-256 digest: r ‖ s, 64 bytes, s low, nonce by RFC 6979.

    Raises InvalidKey for a secret that is 0 or not below n, ValueError for another digest length,
    OSError or RuntimeError where the board's table is missing or damaged.
    """
    d = secret_scalar(secret)
    check_digest(digest)
    e = int.from_bytes(digest, "big")
    for k, blinding in _nonces(secret, digest):
        r = _times_base(k, blinding)[0] % N
        s = _inverse(k * blinding % N, N) * (blinding * (e + r * d) % N) % N
        if r and s:
            return join_signature(r, s)
    raise AssertionError  # the generator does not end


# ------------------------------------------------------------------------- public keys


class PublicKey:
    """A public key and its comb table of ``64 << teeth`` bytes.

    ``sec1`` is the 33-byte compressed form; raises InvalidKey for another length or prefix, x not
    below p, or no such point. ``teeth`` of 3 to 8 chooses the table's size (5: 2 KB, 8: 16 KB).

    The table is built by ``step`` in bounded pieces, or by the first ``verify`` at once, or comes
    from ``from_table``.
    """

    def __init__(
        self, sec1: bytes, teeth: int = DEFAULT_TEETH, _table: "Optional[memoryview]" = None
    ) -> None:
        check_sec1_form(sec1)
        if not _MIN_TEETH <= teeth <= _MAX_TEETH:
            raise ValueError("teeth must be 3 to 8")
        self.sec1 = bytes(sec1)
        self._teeth = teeth
        self._columns = -(-256 // (teeth * _KEY_BLOCKS))  # of one block
        self._work: "Optional[Iterator[None]]" = None
        self._load(_table)
        if _table is None:
            self._affine = _decompress(sec1)

    def _load(self, table: "Optional[memoryview]") -> None:
        self._table = table
        self._rows = None if table is None else _p256_base.Rows(table)

    @classmethod
    def from_table(cls, sec1: bytes, table: bytes, key: bytes = b"") -> "PublicKey":
        """Give the key with a table that ``table`` exported, without any curve arithmetic.

        The bytes are kept, not copied. Raises InvalidKey for a table that is damaged, cut short,
        of another key or sealed with another ``key``; then build it anew from ``sec1``.

        Without ``key`` this catches accidents only (flash wear, a torn write, a mixed-up file):
        whoever can write the file can seal a table of a key pair of his own under this ``sec1``,
        and his signatures will verify. With ``key``, a secret of the board of at most 64 bytes
        used for nothing else, he must be able to read the board's flash too. Neither helps against
        memory that changes after loading.
        """
        teeth = open_table(sec1, table, key)
        if not teeth:
            raise InvalidKey("key table has no rows")
        return cls(sec1, teeth, memoryview(table)[1 : len(table) - _TAG_BYTES])

    def step(self) -> bool:
        """Do one bounded piece of building the table; gives whether more is to do.

        After an exception (MemoryError) the next call begins again.
        """
        if self._rows is not None:
            return False
        if self._work is None:
            self._work = self._build()
        try:
            next(self._work)
        except StopIteration:
            self._work = None
        return self._rows is None

    def table(self, key: bytes = b"") -> bytes:
        """Give the finished table for ``from_table``, which tells what ``key`` is for."""
        while self.step():
            pass
        assert self._table is not None
        return seal_table(self.sec1, self._teeth, self._table, key)

    def verify(self, digest: bytes, signature: bytes) -> None:
        """Check a 64-byte r ‖ s over a 32-byte digest.

        Raises BadSignature for a wrong length, r or s outside [1, n-1], high s, and a signature
        that does not fit; ValueError for another digest length.
        """
        check_digest(digest)
        r, s = split_signature(signature)
        while self.step():
            pass
        assert self._rows is not None
        w = _inverse(s, N)
        columns = self._columns
        digits = _digits(r * w % N, self._teeth, _KEY_BLOCKS * columns)
        key = (digits, self._rows, self._teeth, _KEY_BLOCKS, columns)
        x, _, zz, _ = _sum((_base_term(int.from_bytes(digest, "big") * w % N), key), 1)
        # r is x modulo n, and x may lie in [n, p-1].
        if not zz or ((r * zz - x) % P and (r + N >= P or ((r + N) * zz - x) % P)):
            raise BadSignature("signature does not fit")

    def _build(self) -> "Iterator[None]":
        """Build the table, a doubling chain and then the rows, with a yield after each piece."""
        x, y = self._affine
        chain = [(x, y, 1, 1)]
        while len(chain) < _KEY_BLOCKS * self._teeth:
            point = chain[-1]
            for _ in range(self._columns):
                point = _double(*point)
            chain.append(point)
            yield
        tines = _to_affine(chain)
        chain = []  # some kilobytes less while the rest is built
        yield
        rows = bytearray(64 << self._teeth)
        half = len(rows) // _KEY_BLOCKS
        for block in range(_KEY_BLOCKS):
            part = memoryview(rows)[block * half : (block + 1) * half]
            for _ in _fill(part, tines[block::_KEY_BLOCKS]):
                yield
        self._load(memoryview(rows))


def _to_affine(points: "list[Point]") -> "list[Affine]":
    out = []
    inverses = _inverses([point[3] for point in points])
    for i in range(len(points)):
        x, y, zz, _ = points[i]
        inverse = inverses[i]
        z = zz * inverse % P
        out.append((x * (z * z % P) % P, y * inverse % P))
    return out


def _store(rows: "memoryview", row: int, x: int, y: int) -> None:
    rows[row * 64 : row * 64 + 64] = x.to_bytes(32, "big") + y.to_bytes(32, "big")


def _fill(rows: "memoryview", tines: "list[Affine]") -> "Iterator[None]":
    """Fill one block's rows from its teeth's points, lowest tooth first.

    Row 0 subtracts every tooth but the top one; a set bit j adds the double of tooth j's point.
    No two points that meet in an addition are equal or opposite: that depends on the comb's shape
    alone, the key's order being n, and building one table of a shape shows it.
    """
    x, y = tines[-1]
    first = (x, y, 1, 1)
    steps = []
    for x, y in tines[:-1]:
        first = _add(first[0], first[1], first[2], first[3], x, P - y)
        steps.append(_double(x, y, 1, 1))
    affine = _to_affine([first] + steps)
    _store(rows, 0, affine[0][0], affine[0][1])
    yield
    for tooth in range(len(steps)):
        count = 1 << tooth
        for start in range(0, count, _BATCH):
            _shift(rows, start, min(_BATCH, count - start), count, affine[tooth + 1])
            yield


def _shift(rows: "memoryview", start: int, size: int, distance: int, step: "Affine") -> None:
    """Fill `size` rows from `start + distance` on with the rows from `start` on plus `step`."""
    table = _p256_base.Rows(rows)
    points = [table.point(row) for row in range(start, start + size)]
    inverses = _inverses([step[0] - x for x, _ in points])
    for i in range(size):
        x, y = points[i]
        slope = (step[1] - y) * inverses[i] % P
        x3 = (slope * slope - x - step[0]) % P
        _store(rows, start + distance + i, x3, (slope * (x - x3) - y) % P)
