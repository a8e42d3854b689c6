"""Key files: made once, readable by their owner only, refused when they are anything else."""

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.keys import Signer
from ledger.protocol import cose, p256
from ledger.protocol.errors import InvalidKey

N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def test_saved_key_is_loaded_again(tmp_path):
    signer = Signer.generate()
    signer.save(tmp_path / "operator-1.key")
    again = Signer.load(tmp_path / "operator-1.key")
    assert (again.public_key, again.address) == (signer.public_key, signer.address)
    assert again.seal(b"\x01").raw == signer.seal(b"\x01").raw


def test_key_file_is_for_its_owner_only_whatever_the_mask(tmp_path):
    before = os.umask(0)
    try:
        Signer.generate().save(tmp_path / "a.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600


def test_key_file_is_never_written_over(tmp_path):
    path = tmp_path / "a.key"
    Signer.generate().save(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        Signer.generate().save(path)
    assert path.read_bytes() == before


def test_link_in_place_of_the_key_file_is_not_followed(tmp_path):
    (tmp_path / "a.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        Signer.generate().save(tmp_path / "a.key")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"00" * 32,  # the secret 0
        f"{N:064x}".encode(),
        b"ff" * 32,
        b"11" * 31,
        b"11" * 33,
        b"zz" * 32,
        b"\xff" * 64,
        "１１".encode() * 32,
        b"11" * 16 + b" " + b"11" * 16 + b" 1",
        b"0x" + b"11" * 32,
    ],
)
def test_file_that_is_no_key_is_refused_by_name(tmp_path, content):
    path = tmp_path / "a.key"
    path.write_bytes(content)
    with pytest.raises(InvalidKey, match=r"a\.key"):
        Signer.load(path)


def test_secret_is_not_in_the_error_of_a_spoiled_file(tmp_path):
    path = tmp_path / "a.key"
    path.write_bytes(b"4f" * 31 + b"4x")
    with pytest.raises(InvalidKey) as caught:
        Signer.load(path)
    assert "4f4f" not in str(caught.value)


@given(st.binary(max_size=80))
def test_any_file_gives_a_key_or_invalid_key(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.key"
    path.write_bytes(content)
    try:
        signer = Signer.load(path)
    except InvalidKey:
        return
    assert len(signer.public_key) == 33


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Signer.load(tmp_path / "none.key")


@pytest.mark.parametrize("secret", [b"", bytes(32), bytes(31) + b"\x01\x01", N.to_bytes(32, "big")])
def test_secret_out_of_range_is_refused(secret):
    with pytest.raises(InvalidKey):
        Signer(secret)


@pytest.mark.parametrize("number", [1, N - 1])
def test_first_and_last_secret_sign(number):
    signer = Signer(number.to_bytes(32, "big"))
    signer.seal(b"\x01").verify(p256.PublicKey(signer.public_key))


def test_keys_are_new_each_time_and_the_secret_is_not_shown():
    signers = [Signer.generate() for _ in range(20)]
    assert len({signer.public_key for signer in signers}) == 20
    for signer in signers:
        assert repr(signer) == f"Signer({signer.address.hex()})"
        assert signer._secret.hex() not in repr(signer)


def test_envelope_names_its_signer():
    signer = Signer.generate()
    envelope = signer.seal(b"\x01")
    assert envelope.kid == signer.address == cose.address_of(signer.public_key)
    assert cose.Envelope.parse(envelope.raw).digest == envelope.digest
