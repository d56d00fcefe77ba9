"""Sampling: K turns of many problems in one key/value cache, from token ids to token ids.

`multi_turn` is the sampler, `sampler` feeds it many problems, `text` turns problems into prompts
and tokens into answers.
"""
