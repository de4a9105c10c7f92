"""What it costs to bring code and environment to the nodes (P3, P4, P5, P15).

An environment of 300 MB in 3,000 files is made for the run. Measured on a cluster of one node: the bytes that its
DataNode wrote during the first submit, an unchanged second one, and one after a one-line edit of the code; eight
workers that start from the environment, beside raw skein whose containers unpack the same archive each; and packing
a tree of many files beside `tar czf` at the same level.

    python benchmarks/packaging.py [--size-mb 300] [--files 50000] [--rounds 3] [--conf-dir DIR]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import measure
from measure import Cluster, Series

from tony.localcluster import record

HERE = Path(__file__).resolve().parent
JOB = HERE / "jobs" / "environment.py"
ENVIRONMENT_FILES = 3000
LEVEL = "1"  # what `tony pack` uses
BYTES_WRITTEN = "/jmx?qry=Hadoop:service=DataNode,name=DataNodeActivity*"


def environment(folder: Path, size_mb: float, files: int, seed: int) -> Path:
    """A virtual environment padded with `files` files of together `size_mb`; a third of each does not compress."""
    subprocess.run([measure.PYTHON, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next((folder / "lib").glob("python3*")) / "site-packages"
    bytes_each = int(size_mb * 1e6 / files)
    chance = random.Random(seed)
    text = b"".join(b"    value_%d = compute(value_%d, axis=%d)\n" % (n, n * 7, n % 3) for n in range(4000))
    for number in range(files):
        package = site / f"package_{number // 100:03}"
        if number % 100 == 0:
            package.mkdir()
        noise = chance.randbytes(bytes_each // 3)
        begin = chance.randrange(len(text) // 2)
        repeated = (text[begin:] * (bytes_each // len(text) + 2))[: bytes_each - len(noise)]
        (package / f"part_{number:05}.dat").write_bytes(noise + repeated)
    return folder


def written(cluster: Cluster) -> int:
    """Bytes that the cluster's DataNode has written, for anybody."""
    known = record.read(cluster.conf_dir.parent)
    if known is None:
        raise SystemExit("bytes are counted on a cluster of `tony cluster start` only")
    with urllib.request.urlopen(f"http://127.0.0.1:{known.ports.datanode_http}{BYTES_WRITTEN}", timeout=10) as answer:
        return int(json.load(answer)["beans"][0]["BytesWritten"])


def submit(cluster: Cluster, work: Path, workers: int, env_folder: Path) -> dict[str, float]:
    """One job of ours; its times, the bytes it wrote to the cluster's storage, and the copies of the environment."""
    marks = fresh(work / "marks")
    sizes = ["--workers", str(workers), "--memory", "256m", "--am-memory", "512m"]
    line = [*measure.tony_command(), "--json", "submit", *sizes, "--venv", str(env_folder)]
    line += [str(work / "src" / JOB.name), "--", str(marks)]
    before, cpu = written(cluster), measure.cpu_s(cluster.pids)
    ran = measure.run(line, cluster.environment(work / "state"), work, "tony submit")
    time.sleep(1.0)
    document = json.loads(ran.output.splitlines()[-1])
    return {
        "bytes": written(cluster) - before,
        "told": document["uploaded_bytes"],
        "accepted": document["timeline"]["accepted"],
        "cpu": measure.cpu_s(cluster.pids) - cpu,
        **started(marks, workers, ran),
    }


def skein(cluster: Cluster, work: Path, workers: int, archive: Path) -> dict[str, float]:
    """The same job through raw skein: the archive is shipped as a file, and every container unpacks it."""
    marks = fresh(work / "marks")
    line = [sys.executable, "-W", "ignore", str(HERE / "peers" / "raw_skein.py"), "--unpack", str(archive)]
    line += ["--python", "env/bin/python", str(workers), str(JOB), str(marks)]
    env = {**cluster.environment(work / "state"), "SKEIN_CONFIG": str(work / "skein")}
    before, cpu = written(cluster), measure.cpu_s(cluster.pids)
    ran = measure.run(line, env, work, "raw skein")
    time.sleep(1.0)
    return {
        "bytes": written(cluster) - before,
        "cpu": measure.cpu_s(cluster.pids) - cpu,
        **started(marks, workers, ran),
    }


def started(marks: Path, workers: int, ran: measure.Ran) -> dict[str, float]:
    found = measure.marks(marks)
    if len(found["first"]) != workers:
        raise SystemExit(f"{len(found['first'])} of {workers} workers left a mark")
    return {
        "first": found["first"][0] - ran.begun_at,
        "all": found["first"][-1] - ran.begun_at,
        "copies": len(set(found["copy"])),
    }


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def upload_table(cluster: Cluster, work: Path, env_folder: Path, rounds: int) -> list[str]:
    """First submit, unchanged again, after an edit of one line (P3, P5)."""
    series = {name: Series() for name in ("first submit", "unchanged", "one line edited")}
    script = work / "src" / JOB.name
    series["first submit"].add(submit(cluster, work, 2, env_folder))
    for number in range(rounds):
        series["unchanged"].add(submit(cluster, work, 2, env_folder))
        script.write_text(script.read_text() + f"# edit {number}\n")
        series["one line edited"].add(submit(cluster, work, 2, env_folder))
    rows = [
        [name, *(found.shown(column, ",.0f") for column in ("bytes", "told")), found.shown("accepted")]
        + [found.shown("first")]
        for name, found in series.items()
    ]
    header = ("", "bytes written to HDFS", "uploaded, as told", "command → accepted, s", "command → first line, s")
    print("Two workers with the environment, median / worst\n")
    print(measure.table(header, rows))
    first, again, edited = series.values()
    ratio = (again.median("accepted") or 0) / (first.median("accepted") or 1)
    slower = (edited.median("first") or 0) / (again.median("first") or 1)
    return [
        measure.bar("second submit, uploaded", (again.median("told") or 0) / 1e6, 1, " MB"),
        measure.bar("second submit, written to HDFS by all parts", (again.median("bytes") or 0) / 1e6, 1, " MB"),
        measure.bar("second : first submit, command → accepted", ratio, 0.15),
        measure.bar("edited : unchanged, command → first line", slower, 1.05),
    ]


def start_table(cluster: Cluster, work: Path, env_folder: Path, rounds: int, workers: int) -> list[str]:
    """Many workers on one node (P4). The first of ours in each round meets a new environment."""
    archive = work / "peer.tar.gz"
    subprocess.run(["tar", "czf", str(archive), "-C", str(env_folder), "."], check=True)
    names = ("this project, environment new to the node", "this project, known environment", "unpacked per container")
    series = {name: Series() for name in names}
    for number, name in measure.abba(names, rounds):
        if name == names[0]:
            (env_folder / "lib" / "changed.txt").write_text(f"{number} {time.time()}")
        series[name].add(
            skein(cluster, work, workers, archive) if name == names[2] else submit(cluster, work, workers, env_folder)
        )
    rows = [
        [name, *(found.shown(column) for column in ("first", "all", "cpu")), found.shown("copies", ".0f")]
        for name, found in series.items()
    ]
    print(f"\n{workers} workers on one node, median / worst; packing and upload are in the first row\n")
    print(measure.table(("", "first line, s", "all first lines, s", "CPU-s", "copies unpacked"), rows))
    cpu = measure.ratios(series[names[1]], series[names[2]], "cpu")
    wall = measure.ratios(series[names[1]], series[names[2]], "all")
    new = measure.ratios(series[names[0]], series[names[2]], "cpu")
    return [
        measure.bar("copies on one node", max(series[names[0]].values["copies"]), 1),
        measure.bar("CPU, known environment : unpacked per container", cpu[0] if cpu else None, 0.2),
        measure.bar("CPU, new environment : unpacked per container", new[0] if new else None, 0.35),
        measure.bar("all first lines, known environment : unpacked per container", wall[0] if wall else None, 0.35),
    ]


def pack_table(work: Path, files: int, rounds: int) -> list[str]:
    """Packing a tree of many files beside tar (P15)."""
    folder = environment(work / "many", files * 0.004, files, 2)
    names = ("tony pack", f"tar | gzip -{LEVEL}")
    out = {name: work / f"out-{number}.tar.gz" for number, name in enumerate(names)}
    series = {name: Series() for name in names}
    digests = set()
    env = {**os.environ, "TONY_CACHE_DIR": str(work / "cache")}
    for _, name in measure.abba(names, rounds):
        out[name].unlink(missing_ok=True)
        if name == names[0]:
            shutil.rmtree(work / "cache", ignore_errors=True)
            line = [*measure.tony_command(), "pack", str(folder), "--out", str(out[name])]
        else:
            line = ["tar", f"--use-compress-program=gzip -{LEVEL}", "-cf", str(out[name]), "-C", str(folder), "."]
        cpu = measure.cpu_s(())
        ran = measure.run(line, env, work, name)
        measured = {"wall": ran.seconds, "cpu": measure.cpu_s(()) - cpu, "size": out[name].stat().st_size / 1e6}
        series[name].add(measured)
        if name == names[0]:
            digests.add(hashlib.sha256(out[name].read_bytes()).hexdigest())
    print(f"\nPacking {files:,} files, {files * 0.004:.0f} MB, median / worst\n")
    rows = [
        [name, found.shown("wall"), found.shown("cpu"), found.shown("size", ".1f")] for name, found in series.items()
    ]
    print(measure.table(("", "wall, s", "CPU-s", "archive, MB"), rows))
    ratio = measure.ratios(series[names[0]], series[names[1]], "wall")
    return [
        measure.bar("tony pack : tar", ratio[0] if ratio else None, 1.2),
        measure.bar("different archives of the same tree", len(digests), 1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mb", type=float, default=300.0)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--conf-dir", type=Path, help="of a running `tony cluster` with one node")
    parser.add_argument("--only", choices=("upload", "start", "pack"), action="append")
    chosen = parser.parse_args()
    wanted = chosen.only or ["upload", "start", "pack"]
    bars: list[str] = []
    with measure.workspace("packaging") as work:
        print(f"# {measure.machine_line()}\n")
        if set(wanted) & {"upload", "start"}:
            (work / "src").mkdir()
            shutil.copy(JOB, work / "src")
            env_folder = environment(work / "environment", chosen.size_mb, ENVIRONMENT_FILES, 1)
            with measure.cluster(chosen.conf_dir, None, work, nodes=1) as cluster:
                env = {**cluster.environment(work / "state"), "SKEIN_CONFIG": str(work / "skein")}
                subprocess.run(
                    [
                        sys.executable,
                        "-W",
                        "ignore",
                        "-c",
                        "from skein.cli import main; main()",
                        "config",
                        "gencerts",
                    ],
                    env=env,
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                if "upload" in wanted:
                    bars += upload_table(cluster, work, env_folder, chosen.rounds)
                if "start" in wanted:
                    bars += start_table(cluster, work, env_folder, chosen.rounds, chosen.workers)
        if "pack" in wanted:
            bars += pack_table(work, chosen.files, chosen.rounds)
        print(f"\n# {measure.machine_line()}\n")
    print("\n".join(bars))


if __name__ == "__main__":
    main()
