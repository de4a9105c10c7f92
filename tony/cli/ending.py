"""How a job ended: the block for people and the document for programs, written out."""

from __future__ import annotations

from contextlib import suppress

from tony.cli.invocation import Invocation
from tony.client import record_of
from tony.containers import Cluster
from tony.ending import ending_document, ending_lines, seconds_taken
from tony.errors import TonyError
from tony.outcome import Outcome


def finish(invocation: Invocation, application_id: str, outcome: Outcome, code: int, cluster: Cluster) -> None:
    """The last words: the block for people, the document for programs."""
    output = invocation.output
    record = record_of(application_id)
    output.tell("")
    for line in ending_lines(application_id, outcome, seconds_taken(outcome, record), output.style):
        output.tell(line)
    if output.json:
        tracking_url = ""
        with suppress(TonyError):
            tracking_url = cluster.report(application_id).tracking_url
        document = ending_document(application_id, outcome, record, tracking_url)
        output.document(document | {"exit_code": code})
