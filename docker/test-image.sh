#!/usr/bin/env bash
# A small image with this machine's own Python, made without any registry: docker/test-image.sh [NAME [PYTHON]]
# For trying and testing Docker jobs on a local cluster (tony cluster start --docker). It holds bash, a few tools, and
# the interpreter with its standard library; no pip, no libraries. PYTHON none leaves the interpreter out.
set -euo pipefail

name=${1:-local/tony-test:1}
wanted=${2:-python3}
docker version > /dev/null  # without an engine it says so, and this ends before anything is built
tools="bash sh ls cat cp ln chmod find mkdir rm env id sleep tar gzip"
# Those that any wheel of Python's package index may count on.
libraries="libc.so.6 libm.so.6 libdl.so.2 librt.so.1 libpthread.so.0 libresolv.so.2 libutil.so.1 libgcc_s.so.1 libstdc++.so.6"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{bin,etc,tmp,lib,usr/bin}
chmod 1777 "$root/tmp"
printf 'root:x:0:0:root:/root:/bin/bash\n' > "$root/etc/passwd"
printf 'root:x:0:\n' > "$root/etc/group"
for tool in $tools; do
    cp -L "$(command -v "$tool")" "$root/bin/$tool"
done

places=("$root/bin")
path=/usr/bin:/bin
version=none
if [ "$wanted" != none ]; then
    # The interpreter itself: `command -v` may find a wrapper, or the link of a virtual environment.
    read -r version python prefix library < <("$wanted" -c '
import os, sys, sysconfig
python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
print("%d.%d" % sys.version_info[:2], python, sys.base_prefix, sysconfig.get_path("stdlib"))')
    mkdir -p "$root$prefix/bin" "$root$(dirname "$library")"
    cp -L "$python" "$root$prefix/bin/python$version"
    ln -s "python$version" "$root$prefix/bin/python3"
    tar -C "$(dirname "$library")" --exclude=test --exclude=tests --exclude=site-packages --exclude=dist-packages \
        --exclude=idlelib --exclude=ensurepip --exclude=tkinter --exclude=turtledemo --exclude=__pycache__ \
        --exclude='config-*' -cf - "$(basename "$library")" | tar -C "$root$(dirname "$library")" -xf -
    places+=("$root$prefix/bin" "$root$library")
    path=$prefix/bin:$path
fi

# The shared libraries that all of them name, where they name them, and the loader itself.
known=$(PATH=$PATH:/sbin ldconfig -p)
{
    for library_name in $libraries; do
        awk -v name="$library_name" '$1 == name && /64/ { print "\t" $NF; exit }' <<< "$known"
    done
    find "${places[@]}" -type f \( -perm -u+x -o -name '*.so' \) -exec ldd {} + 2> /dev/null || :
} | grep -P '^\t' | grep -oE '/[^ ]+\.so[^ ]*' | sort -u | while read -r file; do
    mkdir -p "$root$(dirname "$file")"
    [ -e "$root$file" ] || cp -L "$file" "$root$file"
done

tar -C "$root" -c . | docker import --change "ENV PATH=$path" --change "LABEL made-by=tony" - "$name" > /dev/null
if [ "$wanted" != none ]; then
    docker run --rm --network none "$name" python3 -c 'import ctypes, json, socket, ssl' > /dev/null
fi
echo "$name: Python $version, $(docker image inspect --format '{{.Size}}' "$name" | awk '{ printf "%.0f MB", $1 / 1e6 }')"
