"""Built-in checks, one file per domain."""
