"""The board's P-256 on CPython and on MicroPython: signing, refusals, tables, odd additions."""

from hashlib import sha256

from ledger.protocol import _p256_base as base
from ledger.protocol import _p256_pure as pure
from ledger.protocol.errors import BadSignature, InvalidKey

# RFC 6979 A.2.5
SECRET = bytes.fromhex("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721")
PUBLIC = bytes.fromhex("0360FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6")
UY = 0x7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299
RFC6979 = [
    (
        b"sample",
        0xA6E3C57DD01ABE90086538398355DD4C3B17AA873382B0F24D6129493D8AAD60,
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    ),
    (
        b"test",
        0xD16B6AE827F17175E040871A1C7EC3500192C4C92677336EC2537ACAEE0008E0,
        0xF1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367,
        0x019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083,
    ),
]
# RFC 4231 sections 4.2 to 4.4
HMACS = [
    "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
]
DIGEST = sha256(b"sample").digest()
P = pure.P
N = pure.N


def raw(r, s):
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def number(n):
    return n.to_bytes(32, "big")


def refuses(error, function, *arguments):
    """Tell whether the call raises exactly this error."""
    try:
        function(*arguments)
    except ValueError as raised:
        return type(raised) is error
    return False


def scalars(count):
    """Give edge cases and then pseudo-random numbers in [1, n-1]."""
    out = [1, 2, 3, 4, 255, 256, 1 << 224, (1 << 255) + 1, N >> 1, (N >> 1) + 1, N - 2, N - 1]
    for i in range(count):
        out.append(int.from_bytes(sha256(bytes((i,))).digest(), "big") % (N - 1) + 1)
    return out


def test_public_key_is_that_of_rfc_6979():
    assert pure.public_key(SECRET) == PUBLIC
    assert UY & 1 == PUBLIC[0] & 1
    assert pure.PublicKey(PUBLIC)._affine == (int.from_bytes(PUBLIC[1:], "big"), UY)


def test_nonces_and_signatures_are_those_of_rfc_6979_with_low_s():
    for message, k, r, s in RFC6979:
        digest = sha256(message).digest()
        assert next(pure._nonces(SECRET, digest))[0] == k
        assert pure.sign(SECRET, digest) == raw(r, s if s <= N >> 1 else N - s)


def test_the_vectors_have_a_high_and_a_low_s():
    assert [s > N >> 1 for _, _, _, s in RFC6979] == [True, False]


def test_high_s_signature_is_refused():
    key = pure.PublicKey(PUBLIC)
    for message, _, r, s in RFC6979:
        digest = sha256(message).digest()
        key.verify(digest, raw(r, min(s, N - s)))
        assert refuses(BadSignature, key.verify, digest, raw(r, max(s, N - s)))


def test_hmac_is_that_of_rfc_4231():
    cases = [
        (b"\x0b" * 20, b"Hi There", HMACS[0]),
        (b"Jefe", b"what do ya want for nothing?", HMACS[1]),
        (b"\xaa" * 20, b"\xdd" * 50, HMACS[2]),
    ]
    for key, data, expected in cases:
        assert pure.hmac_sha256(key, data).hex() == expected
        assert pure.hmac_sha256(key, data[:3], data[3:]).hex() == expected
    assert refuses(ValueError, pure.hmac_sha256, bytes(65), b"")


def test_secret_out_of_range_is_refused():
    for secret in (number(0), number(N), number(N + 1), b"\xff" * 32, b"", bytes(31), b"\x01" * 33):
        assert refuses(InvalidKey, pure.public_key, secret)
        assert refuses(InvalidKey, pure.sign, secret, DIGEST)


def test_keys_that_are_not_points_are_refused():
    x = PUBLIC[1:]
    for sec1 in (
        b"",
        b"\x00",  # SEC 1's point at infinity
        bytes(33),
        b"\x02",
        b"\x04" + x,
        b"\x05" + x,
        PUBLIC[:-1],
        PUBLIC + b"\x00",
        b"\x04" + x + number(UY),
        b"\x02" + number(P),
        b"\x02" + number(P + 5),  # 5 is an x of the curve
        b"\x02" + b"\xff" * 32,
        b"\x02" + number(1),
        b"\x03" + number(P - 1),
    ):
        assert refuses(InvalidKey, pure.PublicKey, sec1), sec1
    pure.PublicKey(b"\x02" + number(5))


def test_both_signs_of_y_give_their_own_key():
    other = pure.PublicKey(b"\x02" + PUBLIC[1:])
    assert other._affine[1] == P - UY
    assert other.sec1 == b"\x02" + PUBLIC[1:]
    assert refuses(BadSignature, other.verify, DIGEST, pure.sign(SECRET, DIGEST))


def test_r_and_s_out_of_range_are_refused():
    key = pure.PublicKey(PUBLIC)
    good = pure.sign(SECRET, DIGEST)
    r = int.from_bytes(good[:32], "big")
    s = int.from_bytes(good[32:], "big")
    top = (1 << 256) - 1
    for wrong in (0, N, N + 1, P, top):
        assert refuses(BadSignature, key.verify, DIGEST, raw(wrong, s))
        assert refuses(BadSignature, key.verify, DIGEST, raw(r, wrong))
        assert refuses(BadSignature, key.verify, DIGEST, raw(wrong, wrong))
    for wrong in (1, 2, s - 1, s + 1, N >> 1):
        assert refuses(BadSignature, key.verify, DIGEST, raw(r, wrong))
    for wrong in (b"", good[:-1], good + b"\x00", b"\x30\x44" + good):
        assert refuses(BadSignature, key.verify, DIGEST, wrong)
    assert refuses(BadSignature, key.verify, DIGEST, good[:32] + b"\x00" + good[32:])


def test_signature_is_split_only_within_its_bounds():
    for r, s in ((1, 1), (N - 1, N >> 1)):
        assert pure.split_signature(raw(r, s)) == (r, s)
    for r, s in ((0, 1), (N, 1), (1, 0), (1, (N >> 1) + 1), (1, N - 1), (1, N)):
        assert refuses(BadSignature, pure.split_signature, raw(r, s))
    assert refuses(BadSignature, pure.split_signature, number(1) + b"\x01")
    assert refuses(BadSignature, pure.split_signature, number(1) + b"\x00" + number(1))


def test_digest_of_another_length_is_the_callers_mistake():
    key = pure.PublicKey(PUBLIC)
    good = pure.sign(SECRET, DIGEST)
    for digest in (b"", DIGEST[:31], DIGEST + b"\x00"):
        assert refuses(ValueError, pure.sign, SECRET, digest)
        assert refuses(ValueError, key.verify, digest, good)


def test_each_flipped_bit_breaks_the_signature():
    key = pure.PublicKey(PUBLIC)
    good = pure.sign(SECRET, DIGEST)
    for bit in range(0, 512, 13):
        wrong = bytearray(good)
        wrong[bit >> 3] ^= 1 << (bit & 7)
        assert refuses(BadSignature, key.verify, DIGEST, bytes(wrong))
    for bit in range(0, 256, 31):
        wrong = bytearray(DIGEST)
        wrong[bit >> 3] ^= 1 << (bit & 7)
        assert refuses(BadSignature, key.verify, bytes(wrong), good)


def test_sign_and_verify_agree_for_extreme_secrets_and_digests():
    for d in scalars(4):
        secret = number(d)
        key = pure.PublicKey(pure.public_key(secret))
        for digest in (bytes(32), number(1), number(N), number(N + 1), b"\xff" * 32, DIGEST):
            key.verify(digest, pure.sign(secret, digest))


def test_sum_at_infinity_is_refused():
    # u1 * G + u2 * Q with e = -r * d is infinity whatever s is.
    for d in (1, 2, N - 1, int.from_bytes(SECRET, "big")):
        key = pure.PublicKey(pure.public_key(number(d)))
        for r in (1, 5, N - 1):
            assert refuses(BadSignature, key.verify, number(-r * d % N), raw(r, 7))


def test_adding_a_point_to_itself_doubles_and_to_its_opposite_gives_infinity():
    x, y = pure.PublicKey(PUBLIC)._affine
    zz = 3 * 3
    zzz = zz * 3
    twice = pure._add(x * zz % P, y * zzz % P, zz, zzz, x, y)
    assert pure._to_affine([twice]) == pure._to_affine([pure._double(x, y, 1, 1)])
    assert not pure._off_curve(*pure._to_affine([twice])[0])
    assert pure._add(x * zz % P, y * zzz % P, zz, zzz, x, P - y)[2] == 0


def test_halves_that_are_the_same_point_verify():
    # e = r * d makes both halves the same point.
    for d in (1, 2, 3, N - 1):
        secret = number(d)
        key = pure.PublicKey(pure.public_key(secret))
        r = int.from_bytes(pure.public_key(number(9))[1:], "big")  # of the nonce 9
        s = pure._inverse(9, N) * 2 * r * d % N
        key.verify(number(r * d % N), raw(r, min(s, N - s)))


def test_signed_digits_add_up_to_the_scalar():
    for teeth, columns in ((8, 32), (3, 86), (5, 52), (7, 38)):
        for k in [0] + scalars(6):
            total = 0
            digits = pure._digits(k, teeth, columns)
            for column in range(columns):
                for tooth in range(teeth):
                    sign = 1 if digits[column] >> tooth & 1 else -1
                    total += sign << (tooth * columns + column)
            assert total % N == k


def test_inverse_is_an_inverse():
    for m in (N, P):
        for a in scalars(6):
            assert a * pure._inverse(a, m) % m == 1
    try:
        pure._inverse(N, N)
    except ZeroDivisionError:
        return
    raise AssertionError("0 has no inverse")


def test_point_operations_of_signing_do_not_depend_on_the_scalar():
    traces = []
    add, double = pure._add, pure._double

    def traced(name, function):
        def call(*arguments):
            traces[-1].append(name)
            return function(*arguments)

        return call

    pure._add, pure._double = traced("add", add), traced("double", double)
    try:
        for k in scalars(8):
            traces.append([])
            pure._times_base(k, 0xB11D)
    finally:
        pure._add, pure._double = add, double
    assert len(traces[0]) == 31 + 8
    for trace in traces:
        assert trace == traces[0]


def test_blinding_changes_coordinates_and_not_the_point():
    term = (pure._base_term(12345),)
    plain = pure._sum(term, 1)
    blinded = pure._sum(term, 987654321)
    assert plain[2] != blinded[2]
    assert pure._to_affine([plain]) == pure._to_affine([blinded])


def test_result_off_the_curve_does_not_leave():
    double = pure._double
    pure._double = lambda x, y, zz, zzz: (x, y + 1, zz, zzz)
    try:
        pure.sign(SECRET, DIGEST)
    except RuntimeError:
        return
    finally:
        pure._double = double
    raise AssertionError("a wrong point was used")


def test_key_table_of_every_size_verifies():
    good = pure.sign(SECRET, DIGEST)
    for teeth in range(3, 9):
        key = pure.PublicKey(PUBLIC, teeth=teeth)
        steps = 1
        while key.step():
            steps += 1
        assert steps > 2 * teeth
        assert not key.step()
        key.verify(DIGEST, good)
        assert refuses(BadSignature, key.verify, bytes(32), good)
        assert len(key.table()) == (64 << teeth) + 33
    for teeth in (0, 2, 9):
        assert refuses(ValueError, pure.PublicKey, PUBLIC, teeth)


def test_key_table_of_the_base_point_has_the_points_of_its_definition():
    key = pure.PublicKey(pure.public_key(number(1)), teeth=4)
    key.table()
    columns = 32
    for block in range(2):
        for index in range(8):
            k = 1 << 3 * 2 * columns
            for tooth in range(3):
                power = 1 << tooth * 2 * columns
                k += power if index >> tooth & 1 else -power
            expected = pure._times_base((k << block * columns) % N, 1)
            assert key._rows.point(block * 8 + index) == expected


def test_one_step_is_bounded():
    count = [0]
    inverse, inverses, double, add = pure._inverse, pure._inverses, pure._double, pure._add

    def many(values):
        count[0] += len(values)
        return inverses(values)

    def counted(cost, function):
        def call(*arguments):
            count[0] += cost
            return function(*arguments)

        return call

    pure._inverse, pure._double = counted(6, inverse), counted(1, double)
    pure._inverses, pure._add = many, counted(1, add)
    try:
        for teeth in range(3, 9):
            key = pure.PublicKey(PUBLIC, teeth=teeth)
            more = True
            while more:
                count[0] = 0
                more = key.step()
                assert count[0] <= 43  # 43 doublings at 3 teeth
    finally:
        pure._inverse, pure._inverses, pure._double, pure._add = inverse, inverses, double, add


def test_building_begins_again_after_memory_ran_out():
    key = pure.PublicKey(PUBLIC)
    for _ in range(5):
        key.step()
    double = pure._double

    def failing(*arguments):
        raise MemoryError

    pure._double = failing
    try:
        key.step()
        raise AssertionError("the error was swallowed")
    except MemoryError:
        pass
    finally:
        pure._double = double
    key.verify(DIGEST, pure.sign(SECRET, DIGEST))


def test_exported_table_verifies_without_building():
    table = pure.PublicKey(PUBLIC).table()
    key = pure.PublicKey.from_table(PUBLIC, table)
    assert not key.step()
    key.verify(DIGEST, pure.sign(SECRET, DIGEST))
    assert refuses(BadSignature, key.verify, bytes(32), pure.sign(SECRET, DIGEST))
    assert key.sec1 == PUBLIC
    assert key.table() == table


def test_damaged_table_is_refused():
    table = pure.PublicKey(PUBLIC, teeth=3).table()
    for at in range(len(table)):
        wrong = bytearray(table)
        wrong[at] ^= 1 << at % 8
        assert refuses(InvalidKey, pure.PublicKey.from_table, PUBLIC, bytes(wrong))
    for wrong in (b"", table[:1], table[:32], table[:33], table[:-1], table + b"\x00", bytes(545)):
        assert refuses(InvalidKey, pure.PublicKey.from_table, PUBLIC, wrong)


def test_table_of_another_key_is_refused():
    table = pure.PublicKey(PUBLIC, teeth=3).table()
    for sec1 in (
        b"\x02" + PUBLIC[1:],
        pure.public_key(number(7)),
        PUBLIC[:-1],
        b"",
        b"\x04" + table,
    ):
        assert refuses(InvalidKey, pure.PublicKey.from_table, sec1, table)


def test_table_sealed_with_another_secret_is_refused():
    key = pure.PublicKey(PUBLIC, teeth=3)
    sealed = key.table(b"this board")
    pure.PublicKey.from_table(PUBLIC, sealed, b"this board")
    assert refuses(InvalidKey, pure.PublicKey.from_table, PUBLIC, sealed)
    assert refuses(InvalidKey, pure.PublicKey.from_table, PUBLIC, sealed, b"that board")
    assert refuses(InvalidKey, pure.PublicKey.from_table, PUBLIC, key.table(), b"this board")


def test_sealed_table_of_a_wrong_shape_is_refused():
    for teeth, rows in ((0, 0), (2, 256), (3, 511), (3, 513), (9, 32768), (255, 64)):
        table = pure.seal_table(PUBLIC, teeth, bytes(rows), b"")
        assert refuses(InvalidKey, pure.PublicKey.from_table, PUBLIC, table)


def test_base_table_is_read_alike_from_bytes_and_from_a_file():
    path = base.__file__[: base.__file__.rfind("_p256_base")] + "_p256_base.bin"
    with open(path, "rb") as file:
        table = file.read()
        rows = base.Rows(table)
        read = base.FileRows(file)
        assert len(table) == base.TABLE_BYTES
        assert read.digest() == rows.digest() == bytes.fromhex(base.TABLE_SHA256)
        for row in (0, 1, 127, 128, 300, 511):
            assert read.point(row) == rows.point(row)
        for row in (512, 600):
            try:
                read.point(row)
            except OSError:
                continue
            raise AssertionError("read beyond the end")
