"""Floor 0, the vocabulary: frozen pytrees, masked reductions, sharding rules, tokenizers, config.

Everything above speaks in these words, and nothing here knows the algorithm: no reward, no stage,
no model. A change here is felt on every floor, so this room changes least.
"""
