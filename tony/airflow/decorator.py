"""``@task.tony``: a function of the dag as the script of a job, run by every task of it."""

from __future__ import annotations

import ast
import inspect
import json
import tempfile
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from airflow.sdk import Context
from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory

from tony.airflow.operator import TonyOperator
from tony.airflow.result import translated
from tony.errors import Problem, UsageError

_CALL = """

if __name__ == "__main__":
    import json as _json

    with open("{arguments}", encoding="utf-8") as _file:
        _arguments = _json.load(_file)
    {function}(*_arguments["args"], **_arguments["kwargs"])
"""
_ARGUMENTS = "task_arguments.json"


class TonyDecoratedOperator(DecoratedOperator, TonyOperator):
    """The function's source travels, not its surroundings: it imports what it needs, and its arguments are JSON.

    What it returns stays in its process; the task's result is the job's ``tony.job/1``.
    """

    template_fields: ClassVar[Sequence[str]] = (*DecoratedOperator.template_fields, *TonyOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **TonyOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.tony"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        given = [name for name in ("script", "script_args", "job_file", "src") if kwargs.get(name)]
        if given:
            raise TypeError(f"@task.tony: the function is the script; {', '.join(given)} cannot be given beside it")
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, **kwargs)

    def execute(self, context: Context) -> Any:
        """Write the function into a script, and run that."""
        with tempfile.TemporaryDirectory(prefix="tony-task-") as folder:
            try:
                script = write_script(Path(folder), self.python_callable, self.op_args, self.op_kwargs)
            except UsageError as error:
                raise translated(error) from error
            self.script, self.src = str(script), folder
            return super().execute(context)


def write_script(
    folder: Path, function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any]
) -> Path:
    """The function as a script of that folder, with its arguments beside it.

    Raises UsageError for arguments that JSON does not know, or a function whose source cannot be read.
    """
    name = function.__name__
    try:
        arguments = json.dumps({"args": list(args), "kwargs": dict(kwargs)})
        source = source_of(function)
    except (TypeError, ValueError) as error:
        raise UsageError([Problem(name, f"its arguments must be plain values, as in JSON: {error}.")]) from error
    except (OSError, SyntaxError) as error:
        raise UsageError([Problem(name, f"its source cannot be read: {error}.")]) from error
    (folder / _ARGUMENTS).write_text(arguments, "utf-8")
    script = folder / f"{name}.py"
    script.write_text(source + _CALL.format(arguments=_ARGUMENTS, function=name), "utf-8")
    return script


def source_of(function: Callable[..., Any]) -> str:
    """The function's own source, without its decorators. Raises OSError when its file says something else now."""
    source = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(source).body[0]
    if not isinstance(definition, ast.FunctionDef) or definition.name != function.__name__:
        raise OSError("it is not a function of that name; was its file changed meanwhile?")
    return "from __future__ import annotations\n\n" + "\n".join(source.splitlines()[definition.lineno - 1 :]) + "\n"


def tony_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """What ``@task.tony`` is; takes the parameters of `TonyOperator`."""
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=TonyDecoratedOperator, **kwargs
    )
