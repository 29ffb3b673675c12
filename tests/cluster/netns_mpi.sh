#!/usr/bin/env bash
# Several hosts on this machine, as root: each a network namespace, so that MPI uses TCP between them.
#     netns_mpi.sh up N              hosts h0, h1, ... at 10.77.0.10, 10.77.0.11, ...
#     netns_mpi.sh run openmpi|mpich RANKS CMD...     mpirun on h0, RANKS ranks a host
#     netns_mpi.sh down
set -euo pipefail
state=${TMPDIR:-/tmp}/mpisgd-netns
prefix=mpisgd-

up() {
  local count=$1 i host
  mkdir -p "$state"
  echo 127.0.0.1 localhost > "$state/hosts"
  for ((i = 0; i < count; i++)); do echo "10.77.0.$((10 + i)) h$i" >> "$state/hosts"; done
  ip netns add "${prefix}switch"
  ip -n "${prefix}switch" link add br0 type bridge
  ip -n "${prefix}switch" link set br0 up
  for ((i = 0; i < count; i++)); do
    host=${prefix}h$i
    ip netns add "$host"
    mkdir -p "/etc/netns/$host" # ip netns exec shows its files in place of those in /etc
    cp "$state/hosts" "/etc/netns/$host/hosts"
    ip link add eth0 netns "$host" type veth peer name "port$i" netns "${prefix}switch"
    ip -n "${prefix}switch" link set "port$i" master br0 up
    ip -n "$host" link set lo up
    ip -n "$host" addr add "10.77.0.$((10 + i))/24" dev eth0
    ip -n "$host" link set eth0 up
  done
  # Stands in for ssh: agent [OPTION...] HOST COMMAND... A host has its own name, /dev/shm and directory for sockets.
  cat > "$state/agent" <<AGENT
#!/bin/bash
while [ "\${1#-}" != "\$1" ]; do shift; done
host=\$1
shift
mkdir -p "$state/tmp/\$host"
exec ip netns exec "$prefix\$host" unshare --mount --uts --ipc -- \
  /bin/bash -c "mount -t tmpfs tmpfs /dev/shm && hostname \$host && export TMPDIR=$state/tmp/\$host && \$*"
AGENT
  chmod +x "$state/agent"
}

run() {
  local flavour=$1 ranks=$2 options
  shift 2
  case $flavour in
    openmpi)
      awk -v n="$ranks" '$2 ~ /^h[0-9]/ { print $2 " slots=" n }' "$state/hosts" > "$state/hostfile"
      options="--hostfile $state/hostfile -x OMP_NUM_THREADS=1"
      # As root, and with more ranks than cores.
      export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_MCA_plm_ssh_agent=$state/agent \
        PRTE_MCA_hwloc_default_binding_policy=none PRTE_MCA_rmaps_default_mapping_policy=slot:oversubscribe
      ;;
    mpich)
      awk -v n="$ranks" '$2 ~ /^h[0-9]/ { print $2 ":" n }' "$state/hosts" > "$state/hostfile"
      options="-f $state/hostfile -launcher-exec $state/agent"
      ;;
  esac
  exec "$state/agent" h0 "cd $PWD && exec mpirun $options -n $(($(wc -l < "$state/hostfile") * ranks)) $*"
}

down() {
  local namespace
  for namespace in $(ip netns list | awk -v p="$prefix" 'index($1, p) == 1 { print $1 }'); do
    ip netns pids "$namespace" | xargs --no-run-if-empty kill -9 || true
    ip netns del "$namespace"
    rm -rf "/etc/netns/$namespace"
  done
  rm -rf "$state"
}

case ${1:-} in
  up | run | down) "$@" ;;
  *)
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
    ;;
esac
