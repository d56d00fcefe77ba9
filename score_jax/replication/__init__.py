"""The paper's table, run and reported: the rows, the runner, and the report of what they found.

The report is made in four steps: `results` reads the work directory, `orderings` compares rows and
says in words how each comparison falls, `series` and `figures` draw, `report` writes the files.
`paper` holds the paper's own numbers, to stand beside the measured ones.
"""
