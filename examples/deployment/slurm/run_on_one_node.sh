#!/bin/bash
# Runs the three scripts beside it against a real Slurm of two nodes on this machine, preempts one, and takes it all down.
#
#   sudo LIGHTFT_BIN=$PWD/.venv/bin examples/deployment/slurm/run_on_one_node.sh
#
# For a machine of your own that is thrown away: it installs Debian's slurm-wlm and munge and starts their daemons as root,
# with a configuration in a temporary folder; nothing of /etc is used. Each node claims four CPUs, 64 GB and a GPU that
# is none, so that the scripts run as they are written. Takes some five minutes on a quiet machine; LIGHTFT_KEEP=1 keeps the folder.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LIGHTFT_BIN=${LIGHTFT_BIN:-$(dirname "$(command -v lightft)")}
export LIGHTFT_BIN
export LIGHTFT_ENTRYPOINTS=$here/../entrypoints
export OMP_NUM_THREADS=1
export CUDA_VISIBLE_DEVICES=
[ "$(id -u)" = 0 ] || { echo "Slurm's daemons are started as root: run this with sudo." >&2; exit 1; }
[ -x "$LIGHTFT_BIN/lightft" ] || { echo "No lightft in '$LIGHTFT_BIN'. Set LIGHTFT_BIN." >&2; exit 1; }

folder=$(mktemp -d "${TMPDIR:-/tmp}/lightft-slurm.XXXXXX")
export SLURM_CONF=$folder/slurm.conf

main() {
    install_slurm
    start_slurm
    "$LIGHTFT_BIN/python" -W ignore "$here/tiny_project.py" "$folder/project" --epochs 8 2> "$folder/tiny_project.log"
    one_gpu_trains_a_recipe
    several_nodes_train_together
    an_array_trains_a_part_each_and_is_compared
    what_was_preempted_goes_on
    what_runs_out_of_time_goes_on
    echo "All five ran as they should, $(sinfo --version), $(date +%F)."
}

one_gpu_trains_a_recipe() {
    project one
    job=$(submit "$here/one_gpu.sbatch")
    ends_with "$job" COMPLETED
    has_runs 6 && has_report
    echo "ok: one_gpu.sbatch trained 6 runs and wrote the report."
}

several_nodes_train_together() {
    project several
    # Both nodes are this machine, which does not know them by name.
    job=$(LIGHTFT_RENDEZVOUS=127.0.0.1:27930 submit "$here/several_nodes.sbatch")
    ends_with "$job" COMPLETED
    [ "$(field "$job" NumNodes)" = 2 ]
    has_runs 6 && has_report
    echo "ok: several_nodes.sbatch trained 6 runs, each on 2 nodes, and wrote the report."
}

an_array_trains_a_part_each_and_is_compared() {
    project array
    methods=$("$LIGHTFT_BIN/python" "$LIGHTFT_ENTRYPOINTS/train_part.py" recipe.yaml --count)
    sweep=$(submit --array="0-$((methods - 1))%2" "$here/sweep_array.sbatch")
    comparison=$(submit --dependency="afterok:$sweep" "$here/one_gpu.sbatch")
    ends_with "$comparison" COMPLETED
    has_runs 6 && has_report
    grep -q "6 runs; 6 already finished" "lightft-$comparison.log"
    echo "ok: sweep_array.sbatch trained $methods methods as tasks of their own, and one_gpu.sbatch compared them."
}

what_was_preempted_goes_on() {
    project preempted
    job=$(submit --partition=patient --nodelist=node1 --exclusive "$here/one_gpu.sbatch")
    wait_until "a run is finished" 600 has_runs 1
    local first before
    first=$(find runs -mindepth 2 -maxdepth 2 -name run.json | head -n 1)
    before=$(stat --format=%Y.%s "$first")
    # A job of a partition that goes first wants the node: Slurm ends ours and puts it back into the queue.
    urgent=$(sbatch --parsable --partition=urgent --nodelist=node1 --exclusive --output=/dev/null --wrap="sleep 5")
    ends_with "$urgent" COMPLETED
    ends_with "$job" COMPLETED
    [ "$(field "$job" Restarts)" -ge 1 ]
    has_runs 6 && has_report
    [ "$(stat --format=%Y.%s "$first")" = "$before" ]
    echo "ok: one_gpu.sbatch was preempted, went on by itself, and left what was finished alone."
}

what_runs_out_of_time_goes_on() {
    project late
    job=$(submit "$here/one_gpu.sbatch")
    wait_until "a run is finished" 600 has_runs 1
    # What Slurm does by itself two minutes before the end of the job's time, which would be long to wait for.
    scancel --batch --signal=USR1 "$job"
    ends_with "$job" COMPLETED
    [ "$(field "$job" Restarts)" -ge 1 ]
    grep -q "back into the queue" "lightft-$job.log"
    has_runs 6 && has_report
    echo "ok: one_gpu.sbatch was told that its time is nearly up, requeued itself, and ended well."
}

project() { # project NAME: go into a fresh project of that name
    cp -r "$folder/project" "$folder/$1"
    cd "$folder/$1"
}

submit() {
    sbatch --parsable "$@"
}

field() { # field JOB NAME: what scontrol says of a job
    scontrol --oneliner show job "$1" | head -n 1 | tr ' ' '\n' | sed -n "s/^$2=//p" | head -n 1
}

is_over() {
    case $(field "$1" JobState) in
        PENDING | RUNNING | COMPLETING | CONFIGURING | REQUEUED | SUSPENDED) return 1 ;;
    esac
}

ends_with() { # ends_with JOB STATE
    wait_until "job $1 is over" 900 is_over "$1"
    local state
    state=$(field "$1" JobState)
    [ "$state" = "$2" ] || { echo "Job $1 is $state and not $2." >&2; tail -n 20 ./*.log >&2; return 1; }
}

has_runs() { # has_runs NUMBER: at least so many are finished
    [ "$(find runs -mindepth 2 -maxdepth 2 -name run.json 2> /dev/null | wc -l)" -ge "$1" ]
}

has_report() {
    [ -s runs/report.md ]
}

wait_until() { # wait_until WHAT SECONDS COMMAND…
    local end=$((SECONDS + $2))
    until "${@:3}"; do
        [ "$SECONDS" -lt "$end" ] || { echo "Waited $2 seconds until $1." >&2; squeue >&2; return 1; }
        sleep 1
    done
}

install_slurm() {
    if ! command -v slurmctld slurmd munged > /dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge > "$folder/apt.log"
    fi
}

start_slurm() {
    chmod 711 "$folder"
    mkdir -p "$folder/munge" "$folder/state"
    head -c 1024 /dev/urandom > "$folder/munge/key"
    chmod 400 "$folder/munge/key"
    chown -R munge: "$folder/munge"
    cat > "$SLURM_CONF" <<CONFIGURATION
ClusterName=lightft
SlurmctldHost=localhost
SlurmctldPort=27817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,bf_interval=1
KillWait=5
MinJobAge=3600
ReturnToService=2
GresTypes=gpu
NodeName=node[1-2] NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=[27901-27902] CPUs=4 RealMemory=65536 Gres=gpu:1
PartitionName=patient Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF MaxTime=INFINITE State=UP
CONFIGURATION
    # A file stands for the GPU: Slurm hands it out like one.
    echo "Name=gpu File=/dev/null" > "$folder/gres.conf"
    setpriv --reuid=munge --regid=munge --init-groups munged --key-file="$folder/munge/key" \
        --socket="$folder/munge/socket" --log-file="$folder/munge/log" --pid-file="$folder/munge/pid" \
        --seed-file="$folder/munge/seed"
    slurmctld
    slurmd -N node1
    slurmd -N node2
    wait_until "both nodes are idle" 60 both_nodes_are_idle
}

both_nodes_are_idle() {
    [ "$(sinfo --noheader --Node --partition=patient --format=%T 2> /dev/null | grep -c '^idle$')" = 2 ]
}

take_down() {
    local status=$?
    trap - EXIT INT TERM
    cd /
    [ "$status" = 0 ] || { echo "Failed; the daemons said last:" >&2; tail -n 5 "$folder"/slurm*.log >&2 || true; }
    scancel --quiet --user=root 2> /dev/null || true
    sleep 2
    for pid_file in "$folder"/slurmd-node*.pid "$folder/slurmctld.pid" "$folder/munge/pid"; do
        [ ! -s "$pid_file" ] || kill "$(cat "$pid_file")" 2> /dev/null || true
    done
    sleep 2
    if [ -n "${LIGHTFT_KEEP:-}" ]; then echo "Kept: $folder" >&2; else rm -rf "$folder"; fi
    exit "$status"
}

trap take_down EXIT INT TERM
main
