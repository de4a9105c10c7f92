#!/usr/bin/env bash
# A small image with this machine's own Python, made without any registry: docker/test-image.sh [NAME] [PYTHON]
# For trying and testing Docker jobs on a local cluster (tony cluster start --docker). It holds bash, a few tools, and
# the interpreter with its standard library; no pip, no libraries.
set -euo pipefail

name=${1:-local/tony-test:1}
# Not `command -v`: that may be a wrapper, or the link of a virtual environment.
python=$("${2:-python3}" -c 'import os, sys; print(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))')
tools="bash sh ls cat cp ln chmod find mkdir rm env id sleep tar gzip"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# The interpreter's own idea of where it and its library are.
read -r version prefix library modules < <("$python" -IS -c '
import sys, sysconfig
print("%d.%d" % sys.version_info[:2], sys.base_prefix, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))')

mkdir -p "$root"/{bin,etc,tmp,lib,usr/bin,"$prefix/bin"} "$root$(dirname "$library")"
chmod 1777 "$root/tmp"
printf 'root:x:0:0:root:/root:/bin/bash\n' > "$root/etc/passwd"
printf 'root:x:0:\n' > "$root/etc/group"

for tool in $tools; do
    cp -L "$(command -v "$tool")" "$root/bin/$tool"
done
cp -L "$python" "$root$prefix/bin/python$version"
ln -s "python$version" "$root$prefix/bin/python3"
[ "$prefix" = /usr ] || ln -s "$prefix/bin/python$version" "$root/usr/bin/python3"
[ "$prefix" = /usr ] || ln -s "$prefix/bin/python$version" "$root/usr/bin/python$version"
tar -C "$(dirname "$library")" --exclude=test --exclude=tests --exclude=site-packages --exclude=dist-packages \
    --exclude=idlelib --exclude=ensurepip --exclude=tkinter --exclude=turtledemo --exclude=__pycache__ \
    --exclude='config-*' -cf - "$(basename "$library")" | tar -C "$root$(dirname "$library")" -xf -

# The shared libraries that all of them name, where they name them, the loader itself, and those that any wheel of
# Python's package index may count on.
wheels="libc.so.6 libm.so.6 libdl.so.2 librt.so.1 libpthread.so.0 libresolv.so.2 libutil.so.1 libgcc_s.so.1 libstdc++.so.6"
known=$(PATH=$PATH:/sbin ldconfig -p)
{ for wanted in $wheels; do
    awk -v name="$wanted" '$1 == name && /64/ { print "\t" $NF; exit }' <<< "$known"
  done
  find "$root/bin" "$root$prefix/bin" "$root$library" -type f \( -perm -u+x -o -name '*.so' \) -exec ldd {} + || :; } 2>/dev/null |
    grep -P '^\t' | grep -oE '/[^ ]+\.so[^ ]*' | sort -u | while read -r file; do
        mkdir -p "$root$(dirname "$file")"
        [ -e "$root$file" ] || cp -L "$file" "$root$file"
    done

tar -C "$root" -c . | docker import --change "ENV PATH=$prefix/bin:/usr/bin:/bin" \
    --change "LABEL description='tony test image, Python $version'" - "$name" > /dev/null
docker run --rm --network none "$name" python3 -c 'import json, ssl, sqlite3, ctypes, sys; print(sys.version)' > /dev/null
echo "$name: Python $version, $(docker image inspect --format '{{.Size}}' "$name" | awk '{printf "%.0f MB", $1/1e6}')"
