"""The tasks: data sets, prompts, answer extraction, graders.

Host code only: nothing here imports jax, so that a grader's worker process starts fast and can be
killed without harm. It knows problems, text and verdicts, and nothing of the model that answered.
"""
