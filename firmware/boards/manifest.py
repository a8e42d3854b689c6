"""What every board freezes into an image that carries the meter: code in flash takes no memory.

The boards' own manifests include this one after their port's.
"""

# require and package are names that the build puts there.
# mypy: ignore-errors
# ruff: noqa: F821

require("ntptime")
package(
    "firmware",
    (
        "__init__.py",
        "boards/__init__.py",
        "boards/memory.py",
        "boards/wlan.py",
        "meter/__init__.py",
        "meter/checks.py",
        "meter/clock.py",
        "meter/feeder.py",
        "meter/heads.py",
        "meter/history.py",
        "meter/identity.py",
        "meter/inbox.py",
        "meter/journal.py",
        "meter/judge.py",
        "meter/keys.py",
        "meter/link.py",
        "meter/members.py",
        "meter/mqtt.py",
        "meter/outbox.py",
        "meter/program.py",
        "meter/punctual.py",
        "meter/readings.py",
        "meter/reports.py",
        "meter/rig.py",
        "meter/rig_messages.py",
        "meter/state.py",
        "meter/storage.py",
        "meter/stream.py",
        "meter/voltage.py",
        "meter/voter.py",
        "meter/watch.py",
    ),
    base_path="../..",
    opt=1,
)
package(
    "ledger",
    (
        "__init__.py",
        "protocol/__init__.py",
        "protocol/_cbor_pure.py",
        "protocol/_p256_base.py",
        "protocol/_p256_pure.py",
        "protocol/cbor.py",
        "protocol/committee.py",
        "protocol/cose.py",
        "protocol/errors.py",
        "protocol/frame.py",
        "protocol/merkle.py",
        "protocol/messages.py",
        "protocol/p256.py",
        "protocol/quantities.py",
        "protocol/records.py",
        "protocol/rounds.py",
        "protocol/settings.py",
        "protocol/tally.py",
        "protocol/topics.py",
    ),
    base_path="../..",
    opt=1,
)
