"""The engine of virt-preflight: evidence in, judgement and reports out; it knows no check by name."""
