"""The meter on each kind of board: what differs is here, the rest is firmware.meter."""
