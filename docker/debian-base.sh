#!/usr/bin/env bash
# A base image from Debian's packages alone, where no registry can be reached: docker/debian-base.sh [NAME [PACKAGE…]]
# For the build argument BASE of the Dockerfiles here. Needs root and debootstrap. It holds Debian's minimal system,
# Python with pip, the packages that are named, and this machine's list of certificate authorities. MIRROR names
# another server of packages than debootstrap's own, SUITE another Debian.
set -euo pipefail

name=${1:-local/debian-python:1}
shift || true
suite=${SUITE:-bookworm}
packages=$(IFS=,; echo "python3,python3-pip,ca-certificates${*:+,$*}")
# Minutes of work lie before its first use.
docker version > /dev/null
root=$(mktemp -d)
# One that was interrupted has /proc mounted there.
trap 'umount -q "$root/proc" || :; rm -rf --one-file-system "$root"' EXIT

debootstrap --variant=minbase --include="$packages" "$suite" "$root" ${MIRROR:+"$MIRROR"} > "$root.log" 2>&1 ||
    { tail -5 "$root.log" >&2; exit 1; }
rm "$root.log"
# A network that looks into TLS has its own authority, and pip must know it.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
tar -C "$root" --exclude=./var/cache/apt/archives/*.deb --exclude=./var/lib/apt/lists/* -c . |
    docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'LABEL made-by=tony' - "$name" > /dev/null
echo "$name: $suite, $(docker image inspect --format '{{.Size}}' "$name" | awk '{ printf "%.0f MB", $1 / 1e6 }')"
