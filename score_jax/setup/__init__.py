"""From a config to values: task, base model, what is trained, optimiser, stage; and its checks.

Whatever a config says wrongly is refused here, before a model is loaded where that is possible.
"""
