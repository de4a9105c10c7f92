"""``tony``: finds the command, runs it, and turns every exception into a message and an exit code, here alone.

Commands are loaded only when they are called; the help of this group comes from the table below.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from tony.cli.invocation import Invocation, environment_flags, global_options
from tony.cli.output import ReaderGone, mute
from tony.errors import TonyError

COMMANDS: dict[str, tuple[str, str]] = {
    "submit": ("tony.cli.submit:submit", "Submit a training job and follow it."),
    "plan": ("tony.cli.plan:plan", "Show what a submit would do; nothing leaves this machine."),
    "status": ("tony.cli.status:status", "What a job does and what it waits for."),
    "logs": ("tony.cli.logs:logs", "Output of a job's tasks, live or afterwards."),
    "metrics": ("tony.cli.metrics:metrics", "The newest numbers of every task."),
    "resize": ("tony.cli.resize:resize", "Give a running job more or fewer workers."),
    "stack": ("tony.cli.stack:stack", "Where the code of a job's tasks is right now."),
    "kill": ("tony.cli.kill:kill", "End jobs; returns when the cluster confirms it."),
    "wait": ("tony.cli.wait:wait", "Wait for a job and end with its result."),
    "ls": ("tony.cli.ls:ls", "Jobs, the newest first."),
    "cluster": ("tony.cli.cluster:cluster", "A real YARN and HDFS on this machine."),
    "init": ("tony.cli.init:init", "Write a job file to start from."),
    "config": ("tony.cli.config:config", "Show settings and where they come from."),
    "pack": ("tony.cli.pack:pack", "Build an environment archive."),
    "env": ("tony.cli.env:env", "Inspect an environment archive."),
    "runtime": ("tony.cli.runtime:runtime", "Bundles for nodes with another Python."),
    "gc": ("tony.cli.gc:gc", "Remove what finished jobs left behind."),
    "completion": ("tony.cli.completion:completion", "Completion for bash, zsh or fish."),
    "version": ("tony.cli.version:version", "The versions of tony and its parts."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f' Did you mean "{near[0]}"?' if near else " tony --help lists the commands."
            raise click.UsageError(f'no command "{args[0]}".{hint}', ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    params=global_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    invoke_without_command=True,
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Distributed deep-learning training as a Hadoop YARN application.

    tony submit --workers 2 train.py

    Settings come from flags, TONY_* variables, the job file, your file and the site's file, in this order; tony
    config show tells each one's origin.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Never raises."""
    invocation = Invocation()
    environment_flags(invocation)
    try:
        result: Any = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="tony",
            standalone_mode=False,
            obj=invocation,
        )
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except ReaderGone:
        # The interpreter's end is quiet, too.
        mute(sys.stdout)
        return 0
    except (KeyboardInterrupt, click.Abort) as error:
        return _failed(invocation, error, 130)
    except click.ClickException as error:
        return _failed(invocation, error, 2)
    except TonyError as error:
        return _failed(invocation, error, error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last place that can turn a defect into a sentence
        return _failed(invocation, error, 1)


def _failed(invocation: Invocation, error: BaseException, code: int) -> int:
    from tony.cli.failure import show_failure

    if "--json" in sys.argv:
        invocation.output.json = True
    if "-v" in sys.argv or "--verbose" in sys.argv:
        invocation.output.verbose = True
    try:
        show_failure(invocation, error, code)
    except ReaderGone:
        pass
    return code


def interruptible() -> None:
    """Treat TERM like Ctrl-C: schedulers send it, and a followed job must not be left behind unnoticed."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
