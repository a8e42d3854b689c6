"""Who orders transactions: the application interface and the embedded engine."""
