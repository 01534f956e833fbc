"""The loader of YAML files with settings."""

from __future__ import annotations

from typing import Any


def loader(yaml: Any) -> Any:
    """PyYAML's SafeLoader, which also refuses a key that comes twice. It would take the last value."""

    class Once(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    problem = f"{key.value!r:.80} comes twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Once


def problem_of(error: Exception) -> tuple[str, str]:
    """What PyYAML says about a file: the line, such as "line 3" or "" if no line is known, and the problem."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return "" if mark is None else f"line {mark.line + 1}", problem or str(error).partition("\n")[0] or "no text"
