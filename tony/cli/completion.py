"""``tony completion``: the lines for a shell's start file."""

from __future__ import annotations

import click

from tony.cli.invocation import Invocation, TonyCommand
from tony.errors import TonyError


@click.command(cls=TonyCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def completion(invocation: Invocation, shell: str) -> int:
    """Print the completion for a shell. For bash: eval "$(tony completion bash)"."""
    from click.shell_completion import get_completion_class

    from tony.cli.main import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise TonyError(f"no completion for {shell}")
    text = kind(cli, {}, "tony", "_TONY_COMPLETE").source()
    if invocation.output.json:
        invocation.output.document({"schema": "tony.completion/1", "shell": shell, "text": text})
    else:
        invocation.output.data(text)
    return 0
