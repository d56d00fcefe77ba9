"""Floor 3, the procedures: rollout, train step, evaluation, supervised step.

Here the model, the tasks and the mathematics meet for the first time. Each procedure is given all
that it needs as arguments and knows nothing of command lines.
"""
