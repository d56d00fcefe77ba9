"""SCoRe in JAX: language models that learn to correct their own answers.

A model answers, is told only that there *might* be an error, and answers again. Two stages of
reinforcement learning (arXiv:2409.12917) make the second answer better than the first. The rooms
of this package are floors of one house, and a file imports only from lower floors:

    4  programs      main, train, evaluate, quickstart, report, pretrain
    3  procedures    rollout, train step, evaluation, supervised step
    2  objective     log-probs, KL, rewards, advantages, loss: arrays in, arrays out
    1  model | tasks | runs      decoder and weights | problems and graders | run directory
    0  core          types, masked reductions, sharding, tokenizers, config

This file imports nothing, so that `import score_jax` costs nothing.
"""

__version__ = '0.1.0'
