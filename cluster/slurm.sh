#!/usr/bin/env bash
# A sweep as a Slurm job: one Ray node per machine of the allocation, taken down at the end.
#
#   sbatch cluster/slurm.sh --config my.yaml --out /data/my-sweep
#
# What follows the file name goes to sweep/run.py. Submit from the root of the repository, on a file system that
# every node sees. When the time limit nears, the job puts itself back into the queue and goes on from the store.
#
#SBATCH --job-name=tunnel-sweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=tunnel-sweep-%j.log
set -euo pipefail

cd "$SLURM_SUBMIT_DIR"
PATH="${TUNNEL_SWEEP_VENV:-$SLURM_SUBMIT_DIR/.venv}/bin:$PATH" # as `make install` leaves it
export PATH
export TUNNEL_SWEEP_CACHE="${TUNNEL_SWEEP_CACHE:-${TMPDIR:-/tmp}/tunnel-sweep-$USER}" # scratch of each node

# One token for all nodes, in the home directory they share, for its owner's eyes only.
export RAY_AUTH_MODE=token
if [[ -z "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ]]; then
    (umask 077 && ray get-auth-token --generate >/dev/null)
    chmod go= "$HOME/.ray/auth_token"
fi

# This script runs on the first node of the allocation, which becomes the head. An address, not a name: names
# often lead to 127.0.1.1 on the machine itself.
addresses="$(hostname -I)"
head="${RAY_HEAD_IP:-${addresses%% *}}:6379"
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600 # seconds; Python starts slowly from a shared file system

# shellcheck disable=SC2329  # called by the trap
requeue() {
    trap '' USR1
    echo "The time limit is near: job $SLURM_JOB_ID goes back into the queue; finished curves are kept."
    scontrol requeue "$SLURM_JOB_ID"
}
trap requeue USR1

# A node that is taken whole has more cores than the head of this file asks for: "64(x2),32" are two of 64 and one of 32.
cpus="$(tr ',' '\n' <<<"${SLURM_JOB_CPUS_PER_NODE:-$SLURM_CPUS_PER_TASK}" | sed 's/(.*//' | sort -n | head -n 1)"

code_of_sweep="$(mktemp)" # the sweep's exit code, once it has ended
export RAY_HEAD="$head" code_of_sweep
# shellcheck disable=SC2016  # the inner shell expands it, on the head
srun --kill-on-bad-exit=0 --cpus-per-task="$cpus" \
    ray symmetric-run --address "$head" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$cpus" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats -- \
    bash -c 'RAY_ADDRESS="$RAY_HEAD" python sweep/run.py "$@"; echo $? >"$code_of_sweep"' sweep "$@" &
step=$!

# Workers do not end with the head: `ray start --block` takes the orderly end of its raylet for normal, and would
# hold the allocation until the time limit. So the step is ended when the sweep has ended.
while kill -0 "$step" 2>/dev/null && [[ ! -s "$code_of_sweep" ]]; do
    sleep 1 &
    wait "$!" || true # a signal ends this wait early
done
if [[ -s "$code_of_sweep" ]]; then
    trap '' USR1
    sleep 15 # the head takes its own Ray down
    kill -TERM "$step" 2>/dev/null || true
fi
code=0
wait "$step" || code=$?
if [[ -s "$code_of_sweep" ]]; then
    code="$(<"$code_of_sweep")"
elif ((code == 0)); then
    code=1 # symmetric-run may end with 0 although it never came to the sweep
fi
rm -f "$code_of_sweep"
exit "$code"
