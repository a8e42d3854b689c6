"""The program on the meter's board; needs MicroPython, runs on CPython too."""
