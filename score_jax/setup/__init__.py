"""From a config to values: task, base model, what is trained, optimiser, stage; and its checks.

What is missing or does not fit together is refused here, before a model is loaded where that is
possible.
"""
