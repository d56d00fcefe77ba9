"""The published data sets: where their files come from, and how they are prepared and read.

`catalogue` says what there is, `files` finds or downloads the raw files, `builders` are the TFDS
builders, and `read` prepares (once) and reads. Only `builders` needs tensorflow-datasets, and only
`read.read_splits` imports it, so a task of generated problems never does.
"""
