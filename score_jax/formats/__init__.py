"""External formats: GGUF, Hugging Face folders, Gemma's Orbax checkpoints; and our own folder.

A reader has `read_config(path)`, the decoder's sizes, and `iter_params(path, config, dtype)`, one
parameter after the other, so that the host never holds a model twice.
"""
