"""A meter's settings (SPEC section 12) on both interpreters, against the shared vectors."""

from ledger.protocol.errors import MalformedRecord
from ledger.protocol.settings import Settings
from tests.vector_files import load, raised, unhex

_KEYS = ("operators", "gateways", "neighbours")


def _fields(case):
    fields = dict(case["fields"])
    del fields["version"]
    for name in ("genesis", "ca"):
        fields[name] = unhex(fields[name])
    for name in _KEYS:
        fields[name] = [unhex(key) for key in fields[name]]
    return fields


def test_settings_are_encoded_as_in_the_vectors():
    for case in load("settings")["valid"]:
        assert Settings(**_fields(case)).encode() == unhex(case["bytes"]), case["note"]


def test_settings_of_the_vectors_are_decoded_field_by_field():
    for case in load("settings")["valid"]:
        settings = Settings.decode(unhex(case["bytes"]))
        for name, value in _fields(case).items():
            assert getattr(settings, name) == value, (case["note"], name)
        assert settings.chain == settings.genesis[:8]


def test_malformed_settings_are_refused():
    for case in load("settings")["invalid"]:
        assert raised(MalformedRecord, Settings.decode, unhex(case["bytes"])), case["reason"]
