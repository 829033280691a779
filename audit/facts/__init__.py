"""What we know: one file per domain, each with its probes, parsers and typed values together."""
