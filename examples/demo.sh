#!/bin/bash
# Distributed training on a real YARN of this machine: demo.sh TONY PYTHON, where PYTHON has TensorFlow.
# Starts the local cluster unless it runs, submits two of the examples, and stops the cluster if it started it
# (KEEP=1: leaves it running). Ends with 0 when everything that it shows has worked.
set -eu -o pipefail
tony=$(realpath "$1") python=$(realpath --no-symlinks "$2")
cd "$(dirname "$0")/.."

# Whatever this shell or the site is set up for, this demo never goes to another cluster.
unset HADOOP_CONF_DIR YARN_CONF_DIR HADOOP_HOME
export TONY_CLUSTER=yarn TONY_SITE=/dev/null

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; else export NO_COLOR=1; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
shown() { # The words as one would type them.
    local word line='$ tony'
    for word; do line+=" $(printf %q "$word")"; done
    say "$line"
}
run() { shown "$@"; "$tony" "$@"; }
setting() { # What `tony cluster status` says in the line that begins so.
    "$tony" cluster status 2>/dev/null | sed -n "s/^ *$1 *//p"
}

ours='' checkpoints=$(mktemp -d) tag=demo-$$
finish() {
    local code=$?
    trap '' INT TERM
    rm -rf "$checkpoints"
    if [ $code != 0 ] && [ -z "$ours" ]; then # on somebody's cluster nothing of ours may run on
        "$tony" ls --tag "$tag" --state submitted --state accepted --state running --json 2>/dev/null |
            grep -o 'application_[0-9]*_[0-9]*' | sort -u | xargs -r "$tony" kill --grace 5s || :
    fi
    if [ -n "$ours" ] && { [ -z "${KEEP:-}" ] || [ $code != 0 ]; }; then
        say "The cluster was started for this demo, so it ends with it (KEEP=1 would leave it running)."
        "$tony" cluster stop || code=1
    fi
    if [ $code != 0 ] && [ $code -lt 128 ]; then say "The demo did NOT work (exit code $code). What went wrong stands above."; fi
    exit $code
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

say "1. A real YARN and HDFS on this machine"
if "$tony" cluster status >/dev/null 2>&1; then
    echo "It runs already."
else
    ours=yes
    run cluster start --gpus 32
fi
run cluster status
gpus=$("$tony" cluster status | sed -n '1s/.* \([0-9][0-9]*\) GPU.*/\1/p')
each=$((${gpus:-0} / 8))
if [ "$each" -gt 4 ]; then each=4; fi

say "2. Eight workers with $each GPUs each: real containers, counted GPUs, no framework"
run submit --workers 8 --gpus $each --memory 256m --am-memory 1g --tag $tag --python "$python" \
    examples/hello/train.py -- --epochs 3

say "3. TensorFlow: two workers learn handwritten digits together"
log=$checkpoints/log
run submit -f examples/tensorflow-multiworker/job.yaml --python "$python" --am-memory 1g --tag $tag \
    --checkpoint-dir "$checkpoints" | tee -i "$log"

say "4. Both jobs, as the resource manager lists them"
run ls --tag $tag
url="$(setting 'web page')/ws/v1/cluster/apps?applicationTags=$tag&states=FINISHED"
finished=$("$python" - "$url" <<'END'
import json, sys, urllib.request
with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1], timeout=20) as answer:
    apps = (json.load(answer)["apps"] or {"app": []})["app"]
print(sum(app["finalStatus"] == "SUCCEEDED" for app in apps))
END
)
echo "Its REST service counts $finished of these applications with the final status SUCCEEDED."
[ "$finished" = 2 ]

accuracy=$(grep -o 'accuracy=[0-9.]*' "$log" | sort -u | paste -sd' ')
say "It worked. What the two have learnt: $accuracy of the digits that they were not shown."
if [ -z "$ours" ] || [ -n "${KEEP:-}" ]; then
    echo "Next, with this cluster:"
else
    echo "Next:"
    echo "    .venv/bin/tony cluster start"
fi
echo "    .venv/bin/tony submit -f examples/hello/job.yaml --python $python"
echo "    .venv/bin/tony --help               and docs/getting-started.md"
