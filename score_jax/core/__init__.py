"""The vocabulary: frozen pytrees, masked reductions, sharding rules, config, JSON lines.

Everything above speaks in these words, and nothing here knows the algorithm: no reward, no stage,
no model. A change here is felt in every folder, so this one changes least.
"""
