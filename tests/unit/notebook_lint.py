"""What a notebook of the runbook may hold: prose, and cells that make one library call each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

PARAMETERS = frozenset({"site_file", "mode", "yes"})
STAYS_OPEN = "stays-open"
"""Tags the last cell of a notebook that is not done when its last cell is: what that shows has an end of its own."""
STATEMENTS = {  # others than imports, assignments to a name and expressions, by what a person calls them
    ast.FunctionDef: "def",
    ast.AsyncFunctionDef: "def",
    ast.ClassDef: "class",
    ast.For: "for",
    ast.AsyncFor: "for",
    ast.While: "while",
    ast.If: "if",
    ast.With: "with",
    ast.Try: "try",
}
EXPRESSIONS = {
    ast.Lambda: "lambda",
    ast.ListComp: "for",
    ast.SetComp: "for",
    ast.DictComp: "for",
    ast.GeneratorExp: "for",
    ast.NamedExpr: ":=",
    ast.IfExp: "if",
    ast.Await: "await",
    ast.Yield: "yield",
    ast.YieldFrom: "yield",
}


def lint(path: Path) -> list[str]:
    """What is wrong with a notebook, a line each; nothing when it is as it should be."""
    notebook = nbformat.read(path, as_version=4)
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [f"{path.name}: not a valid notebook: {error.message}"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = [*_parameters(code), *_last(code)]
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code":
            first = cell.source.partition("\n")[0]
            found += [f"cell {number} ({first}): {what}" for what in (*_left_behind(cell), *_code(cell.source))]
    return [f"{path.name}: {what}" for what in found]


def _parameters(code: list[NotebookNode]) -> Iterator[str]:
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        yield f"has {len(tagged) or 'no'} cell{'s' if len(tagged) > 1 else ''} tagged `parameters`, not one"
        return
    if tagged[0] is not code[0]:
        yield "its `parameters` cell is not the first with code"
    tree = _parsed(tagged[0].source)
    if tree is None:
        return
    names = set()
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant()):
                names.add(name)
            case _:
                yield "its `parameters` cell holds something else than names and plain values"
    if not names >= PARAMETERS:
        yield f"its `parameters` cell lacks {', '.join(sorted(PARAMETERS - names))}"


def _last(code: list[NotebookNode]) -> Iterator[str]:
    if code and STAYS_OPEN in code[-1].metadata.get("tags", []):
        return
    tree = _parsed(code[-1].source) if code else None
    match tree.body if tree else []:
        case [ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(), attr="finish"), args=[], keywords=[]))]:
            return
    yield "its last cell with code does not finish the chapter"


def _left_behind(cell: NotebookNode) -> Iterator[str]:
    if cell.outputs:
        yield "has outputs"
    if cell.execution_count is not None:
        yield "has an execution count"


def _code(source: str) -> Iterator[str]:
    if not source.strip():
        yield "is empty"
        return
    if TransformerManager().transform_cell(source) != source.rstrip("\n") + "\n":
        yield "uses `!`, `%` or `?`, which only IPython reads"
        return
    tree = _parsed(source)
    if tree is None:
        yield "is not Python"
        return
    for node in ast.walk(tree):
        name = STATEMENTS.get(type(node)) or EXPRESSIONS.get(type(node))
        if name:
            yield f"uses `{name}`"
    for statement in tree.body:
        match statement:
            case ast.Import() | ast.ImportFrom() | ast.Expr() | ast.Assign(targets=[ast.Name()]):
                continue
        if type(statement) not in STATEMENTS:
            yield f"holds more than imports and one call: {ast.unparse(statement)}"
    calls = sum(isinstance(node, ast.Call) for node in ast.walk(tree))
    if calls > 1:
        yield f"makes {calls} calls, not one"


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None
