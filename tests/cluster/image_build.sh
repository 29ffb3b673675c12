#!/usr/bin/env bash
# Build the image of the Containerfile without a registry of images, as root on Debian 12; the base is made once.
#     image_build.sh TAG [CONTEXT]
# Images are kept in IMAGES, by default below TMPDIR, apart from the machine's own.
set -euo pipefail
tag=$1
context=${2:-$(cd "$(dirname "$0")/../.." && pwd)}
images=${IMAGES:-${TMPDIR:-/tmp}/mpisgd-images}
base=localhost/debian:bookworm-slim
authorities=/etc/ssl/certs/ca-certificates.crt
export CONTAINERS_STORAGE_CONF=$images/storage.conf DEBIAN_FRONTEND=noninteractive

if ! command -v buildah >/dev/null || ! command -v debootstrap >/dev/null; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends buildah debootstrap >/dev/null
fi
mkdir -p "$images"
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/graph"\nrunroot = "%s/run"\n' "$images" "$images" \
  > "$CONTAINERS_STORAGE_CONF"
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > "$images/policy.json"

if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  rm -rf "$images/root"
  debootstrap --variant=minbase bookworm "$images/root" > "$images/debootstrap.log"
  # The machine's own sources, so that RUN steps install from where this machine does.
  rm -f "$images/root/etc/apt/sources.list" "$images"/root/var/cache/apt/archives/*.deb
  cp /etc/apt/sources.list.d/debian.sources "$images/root/etc/apt/sources.list.d/"
  container=$(buildah from scratch)
  buildah add -q "$container" "$images/root" / >/dev/null
  buildah config --cmd bash "$container"
  buildah commit -q --signature-policy "$images/policy.json" "$container" "$base" >/dev/null
  buildah rm "$container" >/dev/null
  rm -rf "$images/root"
fi

# Chroot isolation works inside containers too; the host's network reaches the package indexes as this machine does.
buildah bud --isolation chroot --network host --signature-policy "$images/policy.json" --pull-never \
  --build-arg BASE="$base" --volume "$authorities:/run/authorities.crt:ro" --build-arg PIP_CERT=/run/authorities.crt \
  --tag "$tag" --file "$context/Containerfile" "$context"
