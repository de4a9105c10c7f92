#!/bin/bash
# Distributed training on a real YARN of this machine: demo.sh TONY PYTHON, where PYTHON has TensorFlow.
# Starts the local cluster if it does not run (and leaves it running), then submits two of the examples.
set -eu
tony=$(realpath "$1") python=$(realpath --no-symlinks "$2")
cd "$(dirname "$0")"
unset HADOOP_CONF_DIR YARN_CONF_DIR  # this demo never goes to another cluster

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { say "\$ tony $*"; "$tony" "$@"; }

run cluster start
say "# Two tasks, no framework: who am I?"
run submit -f hello/job.yaml --python "$python" --am-memory 1g
say "# TensorFlow's parameter servers: a chief, two workers and a ps learn handwritten digits."
run submit -f tensorflow-parameter-server/job.yaml --python "$python" --am-memory 1g
say "# Both jobs, as the resource manager lists them:"
run ls
say "The cluster is still there: try  tony submit -f examples/tensorflow-multiworker/job.yaml --python $python"
say "Stop it:  tony cluster stop"
