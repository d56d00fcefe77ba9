"""A policy measured: K turns without a checker in between, other protocols, and repair."""
