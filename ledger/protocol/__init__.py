"""The wire and the rules that meter and gateway share (MicroPython and CPython; no I/O, no clock)."""
