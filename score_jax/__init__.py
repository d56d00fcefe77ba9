"""SCoRe in JAX: language models that learn to correct their own answers.

A model answers, is told only that there *might* be an error, and answers again. Two stages of
reinforcement learning (arXiv:2409.12917) make the second answer better than the first.

To understand it, read in this order:

    objective/stages.py       a stage as a row of numbers: Stage I is Eq. 3, Stage II is Eq. 4
    objective/advantages.py   rewards, shaped by the progress bonus, become advantages
    objective/loss.py         the policy gradient and each turn's KL penalty, with its estimators
    rollout/multi_turn.py     K turns sampled in one key/value cache
    training/experience.py    what one step learns from: episodes, sampled and graded
    training/train_step.py    one update, in four numbered steps
    training/train.py         the loop of reinforcement learning

The files at the root are programs, `python -m score_jax.NAME`; nothing in the package imports them.
A file imports from its own folder and from the layers below, here the highest first:

    main evaluate export episodes pipeline plan pretrain quickstart repair_set replicate
    replication/ (the paper's tables)  planning/ (memory and time of a run that is not started)
    training/ (the loops)  evaluation/ (measuring a policy)  cli/ (flags, errors, several processes)
    setup/ (from a config to values, and what is checked of it)
    rollout/ (sampling episodes)  formats/ (external checkpoint formats)
    model/  objective/  tasks/  runs/  tokenizers/
    core/  analysis/

This file imports nothing, so that `import score_jax` costs nothing.
"""

__version__ = '0.1.0'
