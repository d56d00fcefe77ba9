"""A run directory: metrics, records, verdicts, checkpoints and the run's identity."""
