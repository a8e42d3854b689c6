"""The link's small rules: waits, certificates. The link itself: test_program.py."""

import base64
import ssl
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from firmware.meter.link import der_of, next_wait_ms, tls_context
from tests.broker import make_certificates


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_wait_is_between_a_quarter_and_thirty_seconds(failures: int, jitter: int) -> None:
    assert 250 <= next_wait_ms(failures, jitter) <= 30_000


def test_wait_doubles_up_to_its_limit() -> None:
    waits = [next_wait_ms(failures, 255) for failures in range(10)]
    assert waits == sorted(waits)
    assert waits[0] < 500
    assert waits[6] > 29_000


def test_certificate_may_be_pem_or_der(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "tls")
    pem, der = made.ca.read_bytes(), made.ca_der.read_bytes()
    assert der_of(pem) == der_of(der) == der
    assert base64.b64encode(der_of(pem))


def test_context_trusts_the_given_authority_only(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "tls")
    context = tls_context(made.ca.read_bytes())
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1
