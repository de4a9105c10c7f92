#!/usr/bin/env bash
# build_horovod.sh UV PYTHON FOLDER: Horovod's wheel against the TensorFlow of that interpreter, gloo only, into FOLDER.
# Two minutes on two cores. The folder's name must say what the wheel was built from: nothing here looks at what is in
# it, and pip's own cache, which forgets TensorFlow's version, is not used. Horovod's sources are unpacked afresh each
# time, because configuring them edits them in place.
set -euo pipefail
uv=$1 python=$2 folder=$3
here=$(cd "$(dirname "$0")" && pwd)

if ls "$folder"/horovod-*.whl >/dev/null 2>&1; then exit 0; fi

if ! command -v g++ >/dev/null || ! command -v make >/dev/null; then
  line="apt-get install -y --no-install-recommends g++ make"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q && DEBIAN_FRONTEND=noninteractive $line
  else
    echo "A C++ compiler is missing. Run: sudo $line" >&2
    exit 1
  fi
fi

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
"$uv" venv --quiet --python "$python" "$work/tools"
"$uv" pip sync --quiet --python "$work/tools/bin/python" "$here/horovod-tools.lock"
echo "building Horovod, about two minutes; its output goes to $folder.log" >&2
if ! PATH="$work/tools/bin:$PATH" TMPDIR="$work" MAKEFLAGS="-j$(nproc)" \
  HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_WITH_GLOO=1 \
  "$work/tools/bin/python" -m pip --python "$python" wheel --no-cache-dir --no-build-isolation --no-deps \
  --require-hashes --no-binary horovod --wheel-dir "$work/wheel" -r "$here/horovod-source.lock" >"$folder.log" 2>&1; then
  tail -n 40 "$folder.log" >&2
  exit 1
fi
# Whoever was first is right: both wheels are of the same sources.
mv -T "$work/wheel" "$folder" 2>/dev/null || ls "$folder"/horovod-*.whl >/dev/null
