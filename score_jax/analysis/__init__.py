"""The analysis: shares, intervals, edit distances, votes, and results by level.

Records in, numbers out: nothing here opens a file, calls a model or imports jax. An evaluation, a
report and a notebook all count with these functions, and each can be checked by hand on the
smallest example in its docstring.
"""
