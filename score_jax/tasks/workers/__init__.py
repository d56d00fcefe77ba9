"""Functions of strings that run in worker processes, with limits on time and memory."""
