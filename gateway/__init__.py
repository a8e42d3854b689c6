"""The services on the Pi: ingest, rounds, receipts, forwarding, configuration."""
