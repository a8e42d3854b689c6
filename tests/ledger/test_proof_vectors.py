"""The recorded proof files of tests/vectors/proof.json: what they show is read ever after."""

from typing import Any

import pytest

from ledger.genesis import WideGenesis
from ledger.proof import verify_proof
from ledger.protocol.errors import ProtocolError
from tests.vector_files import load, unhex

PROOF = load("proof")
GENESIS = WideGenesis.decode(unhex(PROOF["genesis"]))


@pytest.mark.parametrize("case", PROOF["valid"], ids=lambda case: case["note"])
def test_recorded_proof_shows_what_it_showed(case: dict[str, Any]) -> None:
    found = verify_proof(unhex(case["file"]), GENESIS)
    assert found.as_json() == case["findings"]


@pytest.mark.parametrize("case", PROOF["invalid"], ids=lambda case: case["reason"])
def test_altered_proof_is_refused_with_the_error_named(case: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as refused:
        verify_proof(unhex(case["file"]), GENESIS)
    assert type(refused.value).__name__ == case["error"]
