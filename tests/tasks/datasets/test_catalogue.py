"""The published files."""

import os

from score_jax.tasks.datasets import catalogue


def test_every_published_file_has_a_pinned_https_address_and_a_checksum():
  datasets = (catalogue.MATH, catalogue.GSM8K, catalogue.MBPP, catalogue.HUMANEVAL)
  published = [file for dataset in datasets for file in dataset.files]
  assert len(published) == 6
  for file in published:
    assert file.url.startswith('https://') and file.url.endswith(os.path.basename(file.path))
    assert any(len(part) == 40 for part in file.url.split('/')), 'the address names no commit'
    assert len(file.sha256) == 64
