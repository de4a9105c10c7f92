"""``tony init``: a job file to start from, with what is usually changed and a word on each."""

from __future__ import annotations

from pathlib import Path

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.config.keys import find
from tony.errors import Problem, UsageError

_TEXT = """\
# A job for: tony submit -f {file}
# Every key and its default: tony config show. Flags win over this file.
name: {name}
framework: {framework}
queue: default

# argv of every role that has no command of its own. A first word ending in .py runs with the job's Python.
# Paths are relative to this file's folder, which is the code that every task gets.
command: [{script}]

# Python of the tasks: auto (the active virtual environment), a folder, an archive, or none.
venv: auto

roles:
{roles}
env: {{}}                    # of the user process only, like {{OMP_NUM_THREADS: "2"}}
restart: {{policy: gang, max: 3}}
# max_duration: 12h         # end the job after this long
# files: [vocab.txt]        # more files for the working directory: SRC[::NAME][#archive]
"""
_WORKER = "  worker: {instances: 2, memory: 2g, vcores: 1, gpus: 0}\n"
_PS = "  ps:     {instances: 1, memory: 2g}        # not waited for, but its failure fails the job\n"
_FRAMEWORKS = find("framework")


@click.command(cls=TonyCommand)
@click.argument("file", default="job.yaml")
@click.option(
    "--framework",
    type=click.Choice(_FRAMEWORKS.choices if _FRAMEWORKS else ()),
    default="auto",
    help="Whose roles to write.",
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.pass_obj
def init(invocation: Invocation, file: str, framework: str, force: bool) -> int:
    """Write a job file to start from. Default: job.yaml."""
    path = Path(file)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(job_file_text(path, framework))
    except FileExistsError as error:
        raise UsageError([Problem("FILE", "is there already.", file, hint="--force overwrites it.")]) from error
    except OSError as error:
        raise UsageError([Problem("FILE", f"cannot be written: {error.strerror}.", file)]) from error
    output = invocation.output
    if output.json:
        output.document({"schema": "tony.init/1", "file": str(path)})
    output.say(f"wrote {path}")
    output.say(f"  check it   tony plan -f {path}")
    output.say(f"  run it     tony submit -f {path}")
    return 0


def job_file_text(path: Path, framework: str) -> str:
    """The file's content; its command is the folder's only script, else ``train.py``."""
    folder = path.absolute().parent
    scripts = [one.name for one in sorted(folder.glob("*.py"))[:100]] if folder.is_dir() else []
    script = "train.py" if "train.py" in scripts or len(scripts) != 1 else scripts[0]
    roles = _WORKER + (_PS if framework == "tensorflow" else "")
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in folder.name) or "job"
    quoted = f'"{script}"' if not script.replace("_", "").replace(".", "").replace("-", "").isalnum() else script
    return _TEXT.format(file=path.name, name=f'"{name}"', framework=framework, script=quoted, roles=roles)
