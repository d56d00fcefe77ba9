"""Keeps the other implementation off the network: everything it needs lies in one local file."""

import os

os.environ['HF_HUB_OFFLINE'] = '1'  # read when transformers is imported
