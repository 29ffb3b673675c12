#!/usr/bin/env bash
# Build the image of the Containerfile as root without a registry of images: the base is made by debootstrap.
#     image_build.sh TAG [CONTEXT]
# The images stay in MPISGD_IMAGES, by default a directory under TMPDIR, and the base is made once.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cluster/images.env
. "$here/images.env"
tag=$1 context=${2:-$here/../..} base=localhost/debian:bookworm-slim

if ! command -v buildah debootstrap >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah crun debootstrap >/dev/null
fi
