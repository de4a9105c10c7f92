"""``tony pack``: an environment archive, to be built once and used by many jobs."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.cli.progress import ProgressLine
from tony.containers import SubmitProgress
from tony.errors import PackagingError, Problem, UsageError
from tony.units import format_bytes

SCHEMA = "tony.pack/1"


@click.command(cls=TonyCommand)
@click.argument("folder", required=False)
@click.option("--out", metavar="FILE", default="environment.tar.gz", help="Where to write the archive.")
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave these files out, as in .gitignore.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.pass_obj
def pack(invocation: Invocation, folder: str | None, out: str, exclude: tuple[str, ...], force: bool) -> int:
    """Build an environment archive for --venv. Default: the active virtual environment."""
    from tony.bundle import active_environment
    from tony.packaging.environment import pack_environment
    from tony.packaging.environment_report import inspect_environment
    from tony.paths import cache_dir, private_folder

    output, target = invocation.output, Path(out)
    source = Path(folder) if folder else active_environment()
    if source is None:
        raise UsageError(
            [Problem("FOLDER", "no virtual environment is active.", hint="Activate one, or name its folder.")]
        )
    if not source.is_dir():
        raise UsageError([Problem("FOLDER", "no such folder.", str(source))])
    if not target.name.endswith((".tar.gz", ".tgz")):
        raise UsageError([Problem("--out", "must end in .tar.gz.", out)])
    if target.exists() and not force:
        raise UsageError([Problem("--out", "is there already.", out, hint="--force overwrites it.")])
    report = inspect_environment(source)
    if report.problems:
        raise UsageError(report.problems)
    with ProgressLine(output) as progress:
        archive = pack_environment(
            source,
            private_folder(cache_dir() / "archives"),
            lambda done, total: progress(SubmitProgress("packing environment", done, total)),
            exclude,
        )
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.copyfile(archive.path, partial)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise PackagingError(f"{target} cannot be written: {error.strerror or error}") from error
    for note in (*report.warnings, *report.notes):
        output.say(f"note: {note}")
    if output.json:
        output.document({"schema": SCHEMA, "file": str(target), "bytes": archive.size, "sha256": archive.sha256})
    else:
        output.data(f"{target}  {format_bytes(archive.size)}")
    output.say(f"  use it     tony submit --venv {target} ...")
    return 0
