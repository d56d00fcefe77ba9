"""What a run takes before it is started: memory here, or all of it on TPUs that are not there.

`shapes` makes the programs without weights, `memory` counts this machine's, `tpu` compiles for a
slice; `hlo`, `groups`, `costs`, `chips` and `report` read a compiled program's text, without jax.
"""
