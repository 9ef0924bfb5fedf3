#!/usr/bin/env bash
# Runs one train.py on each node; all of them train one model together. In the repository's folder:
#   sbatch docs/scaling/slurm.sh --data='/corpus/shards/train-*.tfrecord' --ngpu=8 --max_steps=300000
# The same command again continues.
#SBATCH --job-name=waveglow
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
set -euo pipefail
port=$((20000 + SLURM_JOB_ID % 20000))
workers=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/$/:$port/" | paste -sd, -)
# each task has its own SLURM_PROCID; the chief has 0
srun bash -c 'exec python train.py --worker_hosts="$0" --task_index="$SLURM_PROCID" "$@"' \
    "$workers" "$@"
