"""Floor 1, the model: Flax linen decoder, KV cache, sampler, weights in and out.

The decoder is a pure function of parameters, tokens, positions, mask and cache. It knows nothing of
tasks, rewards or turns: what it is asked to continue, and what becomes of it, is others' business.
"""
