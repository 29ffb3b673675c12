#!/usr/bin/env bash
# What the mpi-operator makes of an MPIJob, without Kubernetes, as root: a container a pod, each with a network
# namespace of its own, and the operator's key pair, list of hosts and environment.
#     pods_up.sh up JOB WORKERS OPTION... IMAGE CMD...      start the workers; options are podman's
#     pods_up.sh launch JOB OPTION... IMAGE CMD...          run the launcher; ends with its exit code
#     pods_up.sh kill JOB INDEX                             a worker dies
#     pods_up.sh delete JOB                                 the launcher gets SIGTERM, and SIGKILL a minute later
#     pods_up.sh down
# IMAGES names the store that image_build.sh filled.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
state=${TMPDIR:-/tmp}/mpisgd-pods
podman=(podman --runtime runc --cgroup-manager cgroupfs) # both work without systemd
export CONTAINERS_STORAGE_CONF=${IMAGES:-${TMPDIR:-/tmp}/mpisgd-images}/storage.conf DEBIAN_FRONTEND=noninteractive

if ! command -v podman >/dev/null || ! command -v runc >/dev/null || ! command -v ssh-keygen >/dev/null; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends openssh-client podman runc >/dev/null
fi

pod() { # pod NAME NAMESPACE OPTION... IMAGE CMD...
  local name=$1 namespace=$2
  shift 2
  # Modest limits, because podman's own cannot be set from inside a container.
  "${podman[@]}" run --rm --name "$name" --hostname "$name" --network "ns:/run/netns/$namespace" \
    --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
    --volume "$state/ssh:/home/mpiuser/.ssh:ro" --volume "$state/hosts:/etc/hosts:ro" "$@"
}

up() {
  local job=$1 workers=$2 i
  shift 2
  down
  mkdir -p "$state/ssh" "$state/mpi"
  ssh-keygen -q -t ecdsa -b 521 -m PEM -N '' -f "$state/ssh/id_rsa" # ecdsa by that name, as the operator makes it
  cp "$state/ssh/id_rsa.pub" "$state/ssh/authorized_keys"
  chmod 644 "$state"/ssh/*
  bash "$here/netns_mpi.sh" up $((workers + 1))
  # Pods know each other by the Service's names only; the launcher comes first (runLauncherAsWorker).
  echo "10.77.0.10 $job-launcher.$job.default.svc $job-launcher" > "$state/hosts"
  for ((i = 0; i < workers; i++)); do echo "10.77.0.$((11 + i)) $job-worker-$i.$job.default.svc" >> "$state/hosts"; done
  awk '{ print $2 " slots=1" }' "$state/hosts" > "$state/mpi/hostfile"
  echo 127.0.0.1 localhost >> "$state/hosts"
  for ((i = 0; i < workers; i++)); do
    pod "$job-worker-$i" "mpisgd-h$((i + 1))" --detach --env K_MPI_JOB_ROLE=worker "$@" >/dev/null
    echo "$job-worker-$i" >> "$state/names"
  done
  for ((i = 0; i < workers; i++)); do wait_for_sshd $((i + 1)); done
}

wait_for_sshd() { # as launcherCreationPolicy: WaitForWorkersReady and the worker's probe do
  for _ in {1..100}; do
    if ip netns exec mpisgd-h0 bash -c "exec 3<>/dev/tcp/10.77.0.$((10 + $1))/2222" 2>/dev/null; then return; fi
    sleep 0.1
  done
  echo "pods_up.sh: sshd of worker $(($1 - 1)) does not answer" >&2
  return 1
}

launch() {
  local job=$1
  shift
  echo "$job-launcher" >> "$state/names"
  pod "$job-launcher" mpisgd-h0 --volume "$state/mpi:/etc/mpi:ro" --env K_MPI_JOB_ROLE=launcher \
    --env OMPI_MCA_orte_keep_fqdn_hostnames=true --env OMPI_MCA_orte_default_hostfile=/etc/mpi/hostfile \
    --env "OMPI_MCA_plm_rsh_args=-o ConnectionAttempts=10" --env OMPI_MCA_orte_set_default_slots=1 "$@"
}

down() {
  local name
  if [ -e "$state/names" ]; then
    while read -r name; do
      "${podman[@]}" rm --force --time 1 --ignore "$name" >/dev/null
    done < "$state/names"
  fi
  bash "$here/netns_mpi.sh" down
  rm -rf "$state"
}

case ${1:-} in
  up | launch | down) "$@" ;;
  kill) "${podman[@]}" kill --signal KILL "$2-worker-$3" >/dev/null ;;
  delete) "${podman[@]}" stop --time 60 "$2-launcher" >/dev/null ;;
  *)
    sed -n '2,9s/^# //p' "$0" >&2
    exit 2
    ;;
esac
