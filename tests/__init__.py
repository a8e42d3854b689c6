"""The tests. Their folders mirror the tree; a file `test_*_dual.py` runs on both interpreters."""
