# Settings of the launchers: copy this file, fill it in, and `source` the copy.
# shellcheck shell=bash
export SCORE_PROJECT=my-project   # the Google Cloud project
export SCORE_ZONE=us-east5-b      # a zone with TPUs of the type below
export SCORE_NAME=score           # of the TPU VM, the queued resource, the workload: a-z, 0-9 and -
export SCORE_TYPE=v6e-16          # how XPK and gcloud call the slice: v6e-16, v5p-128, v5litepod-8
export SCORE_SPOT=1               # spot capacity, which may be preempted; 0 for on demand

# For launch/tpu.sh only:
#export SCORE_RUNTIME=            # software of the VM; known for v2 to v4, v5e, v5p and v6e
#export SCORE_SETUP=              # a shell command for each worker, run in ~/score_jax at the end of
#                                 # the installation, such as fetching a model
#export SCORE_POLL_S=60           # seconds from one look of resume and watch to the next

# For launch/xpk.sh only:
export SCORE_CLUSTER=score        # the GKE cluster
export SCORE_IMAGE=us-docker.pkg.dev/my-project/score/score_jax # the container image
export SCORE_SLICES=1             # slices of the type above, joined over the data centre's network
