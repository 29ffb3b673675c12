#!/usr/bin/env bash
# A private Slurm of three virtual nodes on this machine, as root on Debian 12.
#     slurm_up.sh up DIR      then SLURM_CONF=DIR/slurm.conf sbatch ...
#     slurm_up.sh down DIR
# Everything but the packages is below DIR; nothing in /etc is used or changed.
set -euo pipefail
action=$1 dir=$2
nodes=3 cpus=16 port=16817
export SLURM_CONF=$dir/slurm.conf DEBIAN_FRONTEND=noninteractive

stop() { # what this script started, by the pid files it asked for
  local file pid
  for file in "$dir"/slurmd.*.pid "$dir/slurmctld.pid" "$dir/munged.pid"; do
    [ -s "$file" ] || continue
    pid=$(cat "$file")
    kill "$pid" 2>/dev/null || true
    for _ in {1..50}; do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
    rm -f "$file"
  done
}

configure() {
  # Every node is this machine under another name and port. Cores are claimed, not measured (config_overrides), and
  # neither accounting nor cgroups are needed. KillWait is short because tests cancel jobs.
  cat > "$SLURM_CONF" <<CONF
ClusterName=mpisgd
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
TmpFS=$dir/tmp
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
KillWait=5
SchedulerParameters=sched_interval=5,batch_sched_delay=0
NodeName=n[1-$nodes] NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 \
  Port=[$((port + 1))-$((port + nodes))] CPUs=$cpus RealMemory=4000
PartitionName=debug Nodes=ALL Default=YES MaxTime=60 State=UP
CONF
}

start() {
  if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
  fi
  stop
  rm -rf "$dir"
  mkdir -p "$dir"/{state,spool,tmp,log}
  chmod 755 "$dir"
  (umask 077 && head -c 1024 /dev/urandom > "$dir/munge.key")
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --seed-file="$dir/munge.seed" --log-file="$dir/log/munged.log"
  configure
  slurmctld -c
  local node
  for node in $(seq "$nodes"); do slurmd -c -N "n$node"; done
  for _ in {1..60}; do
    if [ "$(sinfo -h -N -o %t 2>/dev/null | grep -c '^idle$')" = "$nodes" ]; then return; fi
    sleep 0.5
  done
  echo "slurm_up.sh: the nodes did not become idle" >&2
  tail -n 20 "$dir"/log/*.log >&2
  return 1
}

case $action in
  up) start ;;
  down)
    scancel --user="$(id -un)" 2>/dev/null || true
    stop
    ;;
  *)
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
    ;;
esac
