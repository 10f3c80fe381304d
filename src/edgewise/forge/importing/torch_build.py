"""Find and call the user's function that builds a torch module, and say clearly what is wrong with it."""

from __future__ import annotations

import inspect
import pkgutil
from types import ModuleType
from typing import Any

from edgewise.errors import ModelError

Shapes = dict[str, tuple[int, ...]]

_RETURNS = "a function without arguments that returns a torch.nn.Module"


def built(name: str, torch: ModuleType, *, base: str) -> Any:
    """Return the module that `package.module:function` returns, or is."""
    found = _resolved(name, base=base)
    if isinstance(found, torch.nn.Module):
        return found
    if not callable(found):
        raise ModelError(
            f"{name}: of type {type(found).__name__}, which cannot be called",
            required=_RETURNS,
            next_step="correct [model] path",
        )
    module_name = name.partition(":")[0]
    try:
        module = found()
    except Exception as error:
        raise ModelError(
            f"{name}: calling it failed: {reason(error)}",
            required=_RETURNS,
            next_step=f"run: python -c 'import {module_name}; {name.replace(':', '.')}()'",
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"{name}: returned a {type(module).__name__}",
            required="a torch.nn.Module",
            next_step="return the module itself, not its state or its output",
        )
    return module


def in_order(name: str, module: Any, given: Shapes) -> Shapes:
    """Return the shapes in the order in which `forward` takes the inputs.

    Names that are not those of its parameters are taken as they stand, first to last.
    """
    parameters = list(inspect.signature(module.forward).parameters.values())
    plain = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    taken = [each.name for each in plain]
    named = set(given) <= set(taken)
    names = [each for each in taken if each in given] if named else list(given)
    fewest = sum(each.default is each.empty for each in plain)
    most = len(names) if any(each.kind is each.VAR_POSITIONAL for each in parameters) else len(taken)
    if not fewest <= len(names) <= most or (named and names != taken[: len(names)]):
        raise ModelError(
            f"{name}: shapes of {', '.join(given)}, while forward takes {', '.join(taken) or 'nothing'}",
            required="a shape for each input that forward needs, without a gap",
            next_step="complete or correct [model.inputs]",
        )
    return {each: given[each] for each in names}


def reason(error: BaseException) -> str:
    """Return the kind of an exception and the last line of its message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300]}" if lines else type(error).__name__


def _resolved(name: str, *, base: str) -> Any:
    module_name, _, function_name = name.partition(":")
    try:
        return pkgutil.resolve_name(name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise ModelError(
                f"{name}: no module named {missing!r}",
                required=f"a module in {base}, or an installed one",
                next_step="correct [model] path, which is package.module:function",
            ) from error
        raise ModelError(
            f"{name}: it needs the module {missing!r}, which is not installed",
            required="a module with everything that it imports",
            next_step=f"install {missing}",
        ) from error
    except AttributeError as error:
        raise ModelError(
            f"{name}: {module_name} has no {function_name!r}",
            required=_RETURNS,
            next_step=f"correct [model] path, or define {function_name} in {module_name}",
        ) from error
    except Exception as error:
        raise ModelError(
            f"{name}: importing {module_name} failed: {reason(error)}",
            required="a module that can be imported",
            next_step=f"run: python -c 'import {module_name}'",
        ) from error
