"""Whether an answer of mathematics equals the reference: read from text, parsed, compared."""
