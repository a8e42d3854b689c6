"""What is frozen into an image for the ESP32.

Build MicroPython with FROZEN_MANIFEST naming this file; docs/firmware.md tells how. main.py and the
table of the base point (ledger/protocol/_p256_base.bin or its frozen form) come apart from it.
"""

# include is a name that the build puts there.
# mypy: ignore-errors
# ruff: noqa: F821

include("$(PORT_DIR)/boards/manifest.py")
include("../manifest.py")
