"""The least that runs N processes through skein: one service whose instances stand in the specification.

raw_skein.py [--driver global] [--unpack ARCHIVE] WORKERS SCRIPT ARGS...
"""

import argparse
import os
import shlex
import sys
import time

import skein

POLL_S = 0.05

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--driver", choices=("own", "global"), default="own", help="global: one that was started before")
parser.add_argument("--python", default=os.path.realpath(sys.executable))
parser.add_argument("--unpack", metavar="ARCHIVE", help="a .tar.gz that every container unpacks as env/")
parser.add_argument("workers", type=int)
parser.add_argument("script")
parser.add_argument("arguments", nargs=argparse.REMAINDER)
chosen = parser.parse_args()

name = os.path.basename(chosen.script)
files = {name: os.path.abspath(chosen.script)}
unpack = ""
if chosen.unpack:
    files["env.tar.gz"] = skein.File(os.path.abspath(chosen.unpack), type="file")
    unpack = "mkdir env && tar xzf env.tar.gz -C env && "
words = [chosen.python, name, *chosen.arguments]
worker = skein.Service(
    instances=chosen.workers,
    resources=skein.Resources(memory="256 MiB", vcores=1),
    files=files,
    script=unpack + "exec " + " ".join(shlex.quote(word) for word in words),
)
specification = skein.ApplicationSpec(
    name="raw-skein",
    master=skein.Master(resources=skein.Resources(memory="512 MiB", vcores=1)),
    services={"worker": worker},
)
client = skein.Client.from_global_driver() if chosen.driver == "global" else skein.Client()
with client:
    application = client.submit(specification)
    while True:
        report = client.application_report(application)
        if report.final_status != "undefined":
            break
        time.sleep(POLL_S)
print(application, report.final_status)
sys.exit(0 if report.final_status == "succeeded" else 1)
