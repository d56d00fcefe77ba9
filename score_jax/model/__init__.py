"""The model: Flax linen decoder, key/value cache, sampling of a token, adapters, sizes.

The decoder is a pure function of parameters, tokens, positions, mask and cache. It knows nothing of
tasks, rewards or turns: what it is asked to continue, and what becomes of it, are others' business.
"""
