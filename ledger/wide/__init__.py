"""The wide-area chain: what regions report, kept in one order."""
