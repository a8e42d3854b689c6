"""A meter's settings (SPEC section 12) on both interpreters, against the shared vectors."""

from ledger.protocol.errors import MalformedRecord
from ledger.protocol.settings import Settings, brokers_of
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


def test_brokers_of_the_vectors_are_taken_apart():
    for case in load("settings")["brokers"]:
        found = brokers_of(case["host"], case["port"])
        assert [list(broker) for broker in found] == case["brokers"], case["host"]


def test_malformed_settings_are_refused():
    for case in load("settings")["invalid"]:
        assert raised(MalformedRecord, Settings.decode, unhex(case["bytes"])), case["reason"]


def test_one_host_is_one_broker():
    assert brokers_of("gateway.lan", 1883) == [("gateway.lan", 1883)]
    assert brokers_of("192.168.1.5", 8883) == [("192.168.1.5", 8883)]
    assert brokers_of("", 1) == [("", 1)]


def test_several_hosts_are_tried_in_their_order_each_with_its_port():
    found = brokers_of("pi-1,pi-2:8883,10.0.0.3:1,pi-4", 1883)
    assert found == [("pi-1", 1883), ("pi-2", 8883), ("10.0.0.3", 1), ("pi-4", 1883)]


def test_ipv6_address_stands_alone_or_in_brackets():
    assert brokers_of("::1", 1883) == [("::1", 1883)]
    assert brokers_of("fe80::1,[::1],[::2]:8883", 7) == [("fe80::1", 7), ("::1", 7), ("::2", 8883)]


def test_list_of_brokers_that_nobody_can_mean_is_refused():
    nine = ",".join(["a"] * 9)
    for host in (",", "a,", ",a", "a,,b", "a:", ":1", "a:0", "a:65536", "a:x", nine):
        assert raised(MalformedRecord, brokers_of, host, 1883), host
    for host in ("a:-1", "a:+1", "a: 1", "a:1_0", "a:\u00b2", "a:000001", "a,[::1]:x"):
        assert raised(MalformedRecord, brokers_of, host, 1883), host


def test_settings_with_a_wrong_list_are_refused():
    good = Settings(**_fields(load("settings")["valid"][0]))
    good.host = "pi-1:8884,pi-2"
    assert Settings.decode(good.encode()).brokers() == [("pi-1", 8884), ("pi-2", 8883)]
    good.host = "pi-1:99999"
    assert raised(MalformedRecord, Settings.decode, good.encode())
