"""The wire and the rules that meter and gateway share (both interpreters; no I/O, no clock)."""
