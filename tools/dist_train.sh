#!/usr/bin/env bash
# Train on several devices of this machine, or of several machines:
#   tools/dist_train.sh CONFIG DEVICES [options of tools/train.py]
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PORT=29500 tools/dist_train.sh CONFIG DEVICES
# Without an accelerator DEVICES counts processes on the CPU.
set -euo pipefail
usage() { sed -n '2,5s/^# //p' "$0"; }
case "${1-}" in -h | --help) usage && exit ;; esac
if [ $# -lt 2 ]; then
    usage >&2
    exit 2
fi
config=$1 devices=$2
shift 2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
exec python -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" \
    --nproc-per-node "$devices" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
