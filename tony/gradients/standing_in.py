"""Let tensors stand in for the variables of a model while it is called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def standing_in(model: Any, weights: Sequence[Any]) -> Iterator[None]:
    """Inside, the model computes with `weights` in place of its trainable variables, in their order.

    For Keras 3 models through its own stateless scope; for tf.Module, to which tf-keras models belong, by setting the
    attributes that hold the variables, and setting them back. Raises ValueError if the numbers differ
    or a variable is not found.
    """
    variables = list(model.trainable_variables)
    if len(variables) != len(weights):
        raise ValueError(f"{len(weights)} weights stand in for {len(variables)} variables")
    if type(variables[0]).__module__.startswith("keras."):
        import keras

        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            yield
        return
    tensors = {id(variable): tensor for variable, tensor in zip(variables, weights, strict=True)}
    found: set[int] = set()
    with contextlib.ExitStack() as stack:
        # what a library keeps lists of besides its attributes is left alone: lists only for those not found otherwise
        for containers in (False, True):
            missing = {key: tensor for key, tensor in tensors.items() if key not in found}
            for part in (model, *model.submodules) if missing else ():
                for name, value in list(vars(part).items()):
                    other = _replaced(value, missing, found) if containers else missing.get(id(value), value)
                    if other is not value:
                        found.add(id(value))
                        vars(part)[name] = other
                        stack.callback(vars(part).__setitem__, name, value)
        if lost := [variable.name for variable in variables if id(variable) not in found]:
            raise ValueError(f"no attribute of the model and no list or dict in one holds {', '.join(lost)}")
        yield


def _replaced(value: Any, tensors: dict[int, Any], found: set[int]) -> Any:
    """A copy of a list, tuple or dict that holds tensors in place of variables, or `value` itself if it has none."""
    if id(value) in tensors:
        found.add(id(value))
        return tensors[id(value)]
    if isinstance(value, dict):
        made: Any = {key: _replaced(one, tensors, found) for key, one in value.items()}
        return made if any(made[key] is not value[key] for key in made) else value
    if isinstance(value, (list, tuple)):
        made = [_replaced(one, tensors, found) for one in value]
        return made if any(new is not old for new, old in zip(made, value, strict=True)) else value
    return value


def plain_variable(variable: Any) -> Any:
    """The TensorFlow variable inside a Keras 3 one, or the variable itself."""
    return variable if callable(getattr(variable, "value", None)) else variable.value
