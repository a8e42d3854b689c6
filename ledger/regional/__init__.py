"""The regional chain: rounds, votes, registry, state, blocks."""
