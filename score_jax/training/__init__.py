"""The training loops, and one step of each: experience and update, or traces to imitate.

`train` is reinforcement learning, `imitate` the supervised baselines, `loop` what both share.
"""
