#!/usr/bin/env bash
# One train.py a node, all of them together:
#   sbatch docs/scaling/slurm.sh --data='/corpus/shards/train-*.tfrecord' --ngpu=8 --max_steps=300000
# from the repository's folder; the same command again continues.
#SBATCH --job-name=waveglow
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
set -euo pipefail
port=$((20000 + SLURM_JOB_ID % 20000))
workers=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/$/:$port/" | paste -sd, -)
# SLURM_PROCID is each task's own: 0 is the chief's
srun bash -c 'exec python train.py --worker_hosts="$0" --task_index="$SLURM_PROCID" "$@"' \
    "$workers" "$@"
