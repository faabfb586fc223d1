"""
What must hold of an ONNX graph before it can be imported, each with an error that names the node.

ONNX's own checker (`onnx.checker.check_node`) judges nodes against their schemas. Names, order
and cycles are checked here, because its messages do not say which nodes a cycle has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto
from onnx.checker import ValidationError, check_node

from spu_ir.dialects.onnx import VERSIONS, op_at
from spu_ir.errors import SpuError

from .limits import DEFAULT_DOMAINS, MAX_DEPTH


def node_label(node: NodeProto) -> str:
    """What errors call a node: its name, or the value it makes where it has no name."""
    return node.name or next((name for name in node.output if name), "?")


def subgraphs(node: NodeProto) -> Iterable[tuple[str, GraphProto]]:
    """The subgraphs of a node with the names of their attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.name, attribute.g


def check_names(graph: GraphProto) -> None:
    """
    Raise SpuError when a name in a graph or its subgraphs is no UTF-8 text.

    protobuf says so only when a name is looked at, and then with an error or with bytes.
    """
    try:
        "".join(_names(graph))
    except (TypeError, UnicodeDecodeError):
        raise SpuError(
            "a name in the file is no UTF-8 text", remedy="the file is damaged, export it again"
        ) from None


def _names(graph: GraphProto) -> Iterator[str]:
    yield graph.name
    for value in (*graph.input, *graph.output):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
        for _, inner in subgraphs(node):
            yield from _names(inner)


def check_graph(
    graph: GraphProto, opset: int, outer: Set[str] = frozenset(), depth: int = 0
) -> None:
    """
    Check a graph and its subgraphs; `outer` are the values of the graphs around it.

    Raises SpuError for an unknown operator, a node that breaks its schema, a value that is
    defined twice or not at all, and an order that is not topological.
    """
    if depth > MAX_DEPTH:
        raise SpuError(f"the model nests more than {MAX_DEPTH} subgraphs")
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise SpuError(
            f"initializer {name!r} is a sparse tensor",
            remedy="store it as a dense one, zeros are found when it is encoded",
        )
    defined = _inputs(graph)
    producers = _producers(graph, defined)
    known = set(outer) | defined
    for index, node in enumerate(graph.node):
        _check_operator(node, opset)
        for name in node.input:
            if name and name not in known:
                raise _undefined(graph, index, name, producers)
        for _, inner in subgraphs(node):
            check_graph(inner, opset, known, depth + 1)
        known.update(name for name in node.output if name)
    for output in graph.output:
        if output.name not in known:
            raise SpuError(f"output {output.name!r} of the graph is not made by any node")


def _inputs(graph: GraphProto) -> set[str]:
    inputs = [value.name for value in graph.input]
    initializers = [tensor.name for tensor in graph.initializer]
    for what, names in (("input", inputs), ("initializer", initializers)):
        seen: set[str] = set()
        for name in names:
            if not name:
                raise SpuError(f"an {what} of the graph has no name")
            if name in seen:
                raise SpuError(f"two {what}s of the graph have the name {name!r}")
            seen.add(name)
    return {*inputs, *initializers}


def _producers(graph: GraphProto, defined: Set[str]) -> dict[str, int]:
    producers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.output:
            if not name:
                continue
            if name in producers or name in defined:
                other = graph.node[producers[name]] if name in producers else None
                by = f"node {node_label(other)!r}" if other else "an input or initializer"
                raise SpuError(
                    f"value {name!r} is defined twice, first by {by}",
                    node=node_label(node),
                    op=node.op_type,
                    remedy="give every value a name of its own",
                )
            producers[name] = index
    return producers


def _undefined(graph: GraphProto, index: int, name: str, producers: Mapping[str, int]) -> SpuError:
    node = graph.node[index]
    place = {"node": node_label(node), "op": node.op_type}
    if name not in producers:
        return SpuError(
            f"input {name!r} is neither an input, an initializer nor the result of a node",
            remedy="the initializer is missing or the file is damaged, export the model again",
            **place,
        )
    cycle = _cycle(graph.node, index, producers)
    if cycle:
        path = " -> ".join(repr(node_label(graph.node[step])) for step in cycle)
        return SpuError(f"the graph has a cycle: {path}", remedy="break the cycle", **place)
    later = node_label(graph.node[producers[name]])
    return SpuError(
        f"input {name!r} is made only later, by node {later!r}",
        remedy="sort the nodes topologically",
        **place,
    )


def _cycle(
    nodes: Sequence[NodeProto], start: int, producers: Mapping[str, int]
) -> list[int] | None:
    """A cycle that can be reached from `start` against the edges, or None."""
    finished: set[int] = set()
    path: list[int] = []
    on_path: set[int] = set()
    stack: list[tuple[int, bool]] = [(start, False)]
    while stack:
        index, leaving = stack.pop()
        if leaving:
            path.pop()
            on_path.discard(index)
            finished.add(index)
            continue
        if index in finished:
            continue
        if index in on_path:
            # Found from a consumer to its producer; shown in the direction of the data.
            return [index, *reversed(path[path.index(index) :])]
        path.append(index)
        on_path.add(index)
        stack.append((index, True))
        for name in nodes[index].input:
            if name in producers:
                stack.append((producers[name], False))
    return None


def _check_operator(node: NodeProto, opset: int) -> None:
    place = {"node": node_label(node), "op": node.op_type}
    if node.domain not in DEFAULT_DOMAINS:
        remedy = "only operators of ONNX's default domain are compiled"
        if node.domain == "com.microsoft":
            remedy = "export the model without ONNX Runtime's optimisations"
        raise SpuError(f"unknown operator of the domain {node.domain!r}", remedy=remedy, **place)
    op = op_at(node.op_type, opset)
    if op is None or op.schema.deprecated:
        since = min(VERSIONS.get(node.op_type, {}), default=None)
        if since is None:
            raise SpuError("unknown operator, ONNX does not have it", **place)
        if op is None:
            raise SpuError(f"opset {opset} does not have the operator, {since} does", **place)
        raise SpuError(
            f"the operator is deprecated since opset {op.since_version}",
            remedy="export the model again with a newer exporter",
            **place,
        )
    if any(subgraphs(node)) or node.op_type == "Constant":
        # The checker would want the values of the graph around a subgraph, which are checked
        # here; constants may be huge and are checked when they are read.
        return
    try:
        check_node(node, _checker_context(opset))
    except ValidationError as error:
        raise SpuError(first_line(error), **place) from None


def _checker_context(opset: int) -> onnx.checker.C.CheckerContext:
    context = onnx.checker.C.CheckerContext()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = {"": opset}
    return context


def first_line(error: Exception) -> str:
    """The first line that says something of an error from a library's C++."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def check_functions(functions: Sequence[FunctionProto]) -> None:
    """Raise SpuError when a model's local functions call one another in a circle."""
    calls = {
        (function.domain, function.name): {(n.domain, n.op_type) for n in function.node}
        for function in functions
    }
    finished: set[tuple[str, str]] = set()
    while len(finished) < len(calls):
        ready = {
            name
            for name, called in calls.items()
            if name not in finished and not (called & calls.keys()) - finished
        }
        if not ready:
            names = ", ".join(sorted(name for _, name in calls.keys() - finished))
            raise SpuError(f"the model's local functions call themselves: {names}")
        finished |= ready
