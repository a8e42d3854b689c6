"""The test vectors, from a second writing of the specification."""
