"""What the source of a function or class contributes to a key, and what it leaves out.

Counted is what the interpreter acts on: the syntax tree, with default values, annotations and everything
nested in it. Not counted: comments, formatting, docstrings, line numbers, the path of the file, and the
decorators above a function (a decorator that changes what a function does makes a wrapper of it: then the wrapper
is the function in question, and what it wraps is in its closure). The tree is written such that 3.11 to 3.13 agree.

Where there is no source (`exec`, some shells), or it cannot be told which of several lambdas is meant, the
bytecode and constants stand in; those differ between versions of Python.
"""

import ast
import hashlib
import inspect
import linecache
import textwrap
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

from upwell.core.keys_kinds import DIGEST_BYTES, encode

K = TypeVar("K")
V = TypeVar("V")

_LEFT_OUT = {"ctx", "kind", "type_comment", "type_ignores"}
_HAVE_DOCSTRING = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef

Shape = list[Any]
"""A tree of lists, texts and numbers that msgspec writes as it is."""


class Remembered(Generic[K, V]):
    """What was found out about an object, for as long as that lives; looked up by identity, never by equality."""

    __slots__ = ("_find_out", "_found")

    def __init__(self, find_out: Callable[[K], V]) -> None:
        self._find_out = find_out
        self._found: dict[int, tuple[weakref.ref[Any], V]] = {}

    def __call__(self, about: K) -> V:
        known = self._found.get(id(about))
        if known is not None and known[0]() is about:
            return known[1]
        found = self._find_out(about)
        try:
            number = id(about)
            self._found[number] = (weakref.ref(about, lambda gone: self._forget(number, gone)), found)
        except TypeError:  # without weak references: found out each time
            pass
        return found

    def _forget(self, number: int, gone: object) -> None:
        known = self._found.get(number)
        if known is not None and known[0] is gone:
            del self._found[number]


def _digest_of_function(function: types.FunctionType) -> bytes:
    code = function.__code__
    try:
        node = _lambda_node(code) if code.co_name == "<lambda>" else _def_node(code)
        if node is not None:
            return _digest(["source", _shape(node, outermost=True)])
    except RecursionError:  # an expression of very many terms
        pass
    return _digest(["code", code_shape(code)])


def _digest_of_class(cls: type) -> bytes:
    try:
        node = _parsed(cls)
        if isinstance(node, ast.ClassDef):
            return _digest(["source", _shape(node)])
    except RecursionError:
        pass
    return _digest(["code", {name: code_shape(member.__code__) for name, member in _functions_of(cls)}])


def _digest(shape: Shape) -> bytes:
    return hashlib.blake2b(encode(shape), digest_size=DIGEST_BYTES).digest()


function_source = Remembered(_digest_of_function)
"""A digest of the source of this function, or of its bytecode."""

class_source = Remembered(_digest_of_class)
"""A digest of the source of this class, or of the bytecode of its methods; one that is not written in Python has none,
and all those share one digest."""


def code_shape(code: types.CodeType) -> Shape:
    """What a code object does, wherever it stands."""
    consts = [_constant(item) for item in code.co_consts]
    counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
    names = [list(code.co_names), list(code.co_varnames), list(code.co_freevars), list(code.co_cellvars)]
    return [code.co_name, code.co_code, code.co_exceptiontable, consts, counts, names]


def _constant(value: Any) -> Any:
    """A constant, with its type where its text alone would not tell it."""
    if isinstance(value, types.CodeType):
        return code_shape(value)
    if isinstance(value, tuple):
        return ["tuple", *map(_constant, cast("Any", value))]
    if isinstance(value, frozenset):
        return ["frozenset", *sorted(map(repr, cast("Any", value)))]
    return [type(value).__name__, value if isinstance(value, bytes) else repr(value)]


def _functions_of(cls: type) -> Iterator[tuple[str, types.FunctionType]]:
    for name, member in cls.__dict__.items():
        inner = getattr(member, "__func__", getattr(member, "fget", member))
        if isinstance(inner, types.FunctionType):
            yield name, inner


def _parsed(value: Any) -> ast.AST | None:
    try:
        lines, _ = inspect.getsourcelines(value)
        body = ast.parse(textwrap.dedent("".join(lines))).body
    except (OSError, TypeError, SyntaxError, ValueError, IndexError):
        return None
    return body[0] if len(body) == 1 else None


def _def_node(code: types.CodeType) -> ast.AST | None:
    node = _parsed(code)
    return node if isinstance(node, _FUNCTIONS) and node.name == code.co_name else None


def _lambda_node(code: types.CodeType) -> ast.AST | None:
    """The lambda that begins where this code does, if there is only one: two of one line look alike."""
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    except (SyntaxError, ValueError):
        return None
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno]
    return found[0] if len(found) == 1 else None


def _shape(node: ast.AST, *, outermost: bool = False) -> Shape:
    """The tree without what is empty: a later Python adds fields that are empty where an earlier one has none."""
    shape: Shape = [type(node).__name__]
    value: Any
    for name, value in ast.iter_fields(node):
        if name in _LEFT_OUT or (outermost and name == "decorator_list"):
            continue
        if isinstance(node, ast.Constant):
            shape.append(_constant(value))
            continue
        if name == "body" and isinstance(node, _HAVE_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            value = value[1:]
        if isinstance(node, ast.JoinedStr):
            value = [part for part in value if not _is_empty_text(part)]
        if value is None or value == [] or (name == "format_spec" and all(map(_is_empty_text, value.values))):
            continue
        shape.append([name, _field(value)])
    return shape


def _is_empty_text(node: ast.AST) -> bool:
    """Whether this is a part of an f-string that only some versions of Python see."""
    return isinstance(node, ast.Constant) and node.value == ""


def _field(value: Any) -> Any:
    if isinstance(value, ast.AST):
        return _shape(value)
    return [_field(item) for item in cast("Any", value)] if isinstance(value, list) else value
