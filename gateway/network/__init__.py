"""What a network of nodes is on disk: its folder, each node's home, and the engine's program."""
