"""One self-contained ONNX file; nothing else imports jax2onnx."""

import contextlib
import importlib
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import onnx
import onnx_ir
from flax import nnx
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

from mnist_jax.errors import UserError, first_line
from mnist_jax.export.interface import BATCH_NAME, INPUT_NAME, IR_VERSION, OPSET, OUTPUT_NAME
from mnist_jax.models import layers
from mnist_jax.models.network import scores

# From opset 18 on these take their axes as an input; ReduceSum does so already in 13.
REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2")
REDUCTIONS += ("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
PADDED = ("Conv", "MaxPool", "AveragePool")


class ExportError(UserError):
    """The network cannot be exported as it is; the message names the fault and the remedy."""


def to_bytes(
    model: nnx.Module, image_shape: tuple[int, int, int], metadata: Mapping[str, str]
) -> bytes:
    """Exports a network's scores; the same weights give the same bytes.

    Args:
        model: a network, in evaluation mode.
        image_shape: height, width and channels of its images.
        metadata: goes into the file in sorted order; no time, host or path belongs there.

    Returns:
        An ONNX file with input `image`, float32 `[batch, 1, side, side]`, grey levels 0 to 1, and
        output `scores`, float32 `[batch, classes]`; `batch` is dynamic.

    Raises:
        ExportError: the network cannot be exported, or would be exported wrongly.
    """
    model = exportable(model)
    check_exportable(model, image_shape)
    import jax2onnx  # not at the top: it takes 0.3 s, which not every importer need spend

    try:
        with _quiet(), _converters_of_jax_and_flax_only(), jax.numpy_rank_promotion("allow"):
            exported = jax2onnx.to_onnx(
                partial(scores, model),
                [(BATCH_NAME, *image_shape)],
                model_name=type(model).__name__,
                opset=OPSET,
                inputs_as_nchw=[0],
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                return_mode="ir",
            )
            _tidy(exported)
            proto = onnx_ir.to_proto(exported)
        proto.ir_version = IR_VERSION
        proto.producer_name, proto.producer_version = "mnist_jax", ""
        onnx.helper.set_model_props(proto, dict(sorted(metadata.items())))
        proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
        _pad_explicitly(proto.graph)
    except Exception as error:  # a converter can fail in any way, and all mean the same here
        remedy = "write the layer named there with operations that jax2onnx converts"
        if "positional argument" in str(error):
            remedy = "give its arguments by name, as in nnx.max_pool(x, window_shape=(2, 2))"
        raise ExportError(
            f"{type(model).__name__} cannot be exported to ONNX: {_operation_at_fault(error)}"
            f"{first_line(error)}; {remedy}"
        ) from error
    return proto.SerializeToString(deterministic=True)


def _operation_at_fault(error: Exception) -> str:
    """Names the operation that jax2onnx was at, which its own messages seldom do."""
    name = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        operation = frame.f_locals.get("eqn")
        if operation is not None and hasattr(operation, "primitive"):
            name = f"{operation.primitive.name}: "
    return name


class _Identity(nnx.Dropout):
    """What dropout is in evaluation, in a form that jax2onnx converts: nothing."""

    def __call__(self, inputs, **_: Any):
        """Returns the inputs."""
        return inputs


def exportable(model: nnx.Module) -> nnx.Module:
    """Returns a network as it is exported: plain convolutions, no dropout in evaluation mode."""
    model = layers.plain(model)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Dropout) and module.deterministic:
            module.__class__ = _Identity  # so it stays wherever the network keeps it
    return model


def check_exportable(model: nnx.Module, image_shape: tuple[int, int, int]) -> None:
    """Refuses what jax2onnx is known to export wrongly without a word.

    It looks at what the scores compute, not at flags: a layer left in training mode is a fault
    where it takes part. A pool whose explicit padding happens to equal "SAME" cannot be told apart
    here; `verify.check_parity_before_training` finds it.

    Raises:
        ExportError: the network fails, draws random numbers, changes the network's state, or pools
            with a padding other than "SAME" and "VALID".
    """
    name = type(model).__name__
    graphdef, state = nnx.split(model)

    def scores_and_state(state, images):
        network = nnx.merge(graphdef, state)
        return scores(network, images), nnx.state(network)

    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    try:
        jaxpr = jax.make_jaxpr(scores_and_state)(state, images).jaxpr
    except Exception as error:
        raise ExportError(
            f"{name} fails on images {images.shape}: {first_line(error)}; it must take "
            "images alone, in evaluation mode"
        ) from error
    rule = f"{name} must not in evaluation; leave it to layers that .eval() switches, and call it"
    for operation in _operations(jaxpr):
        primitive = operation.primitive.name
        if primitive.startswith(("random_", "threefry", "rng_")):
            raise ExportError(f"{primitive} draws random numbers, which {rule}")
        if primitive.startswith("reduce_window") and not _is_padding_exportable(operation):
            raise ExportError(
                f"a pool of {name} has the explicit padding {operation.params['padding']}, which "
                'jax2onnx takes for "VALID"; use "SAME", "VALID", or pad before the pool'
            )
    if jaxpr.invars[:-1] != jaxpr.outvars[1:]:
        raise ExportError(f"evaluation changes the network's state, which {rule}")


def _operations(jaxpr: Any) -> Iterator[Any]:
    """Yields every operation of a traced function, inner functions included."""
    for operation in jaxpr.eqns:
        yield operation
        for value in operation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _operations(inner)


def _is_padding_exportable(pool: Any) -> bool:
    params, shape = pool.params, pool.invars[0].aval.shape
    window, strides = params["window_dimensions"], params["window_strides"]
    same = jax.lax.padtype_to_pads(shape, window, strides, "SAME")
    padding = [tuple(pair) for pair in params["padding"]]
    return padding == [tuple(pair) for pair in same] or not any(map(sum, padding))


def _tidy(exported: Any) -> None:
    """Makes the graph what one would write by hand: no shape arithmetic, no notes, plain names.

    jax2onnx computes the shape of a reshape at run time, by five nodes. Where the batch stays first
    and the other sizes are known, it is a constant, in which 0 stands for "as in the input".
    """
    graph = exported.graph
    for node in graph:
        if node.op_type in REDUCTIONS and len(node.inputs) == 2:
            _axes_as_attribute(node)
        if node.op_type != "Reshape":
            continue
        source, target = node.inputs[0].shape or (), node.outputs[0].shape or ()
        sizes = list(target)[1:]
        if not sizes or source[:1] != target[:1] or not all(isinstance(n, int) for n in sizes):
            continue
        if len(sizes) == 1:
            node.op_type = "Flatten"
            node.attributes.clear()
            node.resize_inputs(1)
        else:
            shape = onnx_ir.tensor([0, *sizes], onnx_ir.DataType.INT64, f"{node.name}_shape")
            constant = onnx_ir.Value(name=shape.name, const_value=shape)
            graph.register_initializer(constant)
            node.replace_input_with(1, constant)
    RemoveUnusedNodesPass()(exported)
    ClearMetadataAndDocStringPass()(exported)
    for index, node in enumerate(graph):
        node.name = f"{node.op_type}_{index}"
    # Shapes are inferred again from the operators: those of jax2onnx are in part unknown or stale.
    values = [value for node in graph for value in node.outputs]
    for value in [*values, *graph.initializers.values()]:
        if not value.is_graph_output():
            value.type = value.shape = None


def _axes_as_attribute(reduction: onnx_ir.Node) -> None:
    """Gives a reduction its axes as opset 17 has them; jax2onnx writes those of opset 18."""
    axes = reduction.inputs[1]
    if axes is not None and axes.const_value is not None:
        values = [int(axis) for axis in axes.const_value.numpy()]
        reduction.attributes["axes"] = onnx_ir.AttrInt64s("axes", values)
        reduction.resize_inputs(1)


def _pad_explicitly(graph: onnx.GraphProto) -> None:
    """Writes the padding "SAME" in pixels: by that name OpenCV 5 pads wrongly under strides."""
    sizes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim[2:]]
        for value in (*graph.input, *graph.value_info)
    }
    kernels = {array.name: list(array.dims[2:]) for array in graph.initializer}
    for node in graph.node:
        facts = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        if node.op_type not in PADDED or facts.get("auto_pad") != b"SAME_UPPER":
            continue
        sides = sizes.get(node.input[0], [])
        windows = facts.get("kernel_shape") or kernels.get(node.input[1], [])
        if not sides or 0 in sides or len(windows) != len(sides):
            continue  # not known here: the name stays
        ones = [1] * len(sides)
        strides, dilations = facts.get("strides", ones), facts.get("dilations", ones)
        before, after = [], []
        for side, window, stride, dilation in zip(sides, windows, strides, dilations, strict=True):
            reach = (-(-side // stride) - 1) * stride + (window - 1) * dilation + 1
            missing = max(0, reach - side)
            before.append(missing // 2)
            after.append(missing - missing // 2)
        (named,) = [entry for entry in node.attribute if entry.name == "auto_pad"]
        named.CopyFrom(onnx.helper.make_attribute("pads", before + after))


@contextlib.contextmanager
def _converters_of_jax_and_flax_only() -> Iterator[None]:
    """Spares jax2onnx the converters that no network here needs.

    It imports all it has before the first conversion, and those for Equinox compile 74 small XLA
    programs while they are imported: 4 s on a quiet machine, 16 s on a busy one. So those of JAX
    and Flax are imported here, and the flag that says "done" is set meanwhile. Where a newer
    jax2onnx has none of this, nothing is spared and everything works.
    """
    flag = "_already_imported_plugins"
    plugin_system = _import_converters()
    if getattr(plugin_system, flag, True):
        yield  # all are there already, or the flag is not
        return
    setattr(plugin_system, flag, True)
    try:
        yield
    finally:
        setattr(plugin_system, flag, False)


def _import_converters() -> ModuleType | None:
    """Imports the converters of JAX and Flax; returns the module to hold them, None on failure."""
    try:
        plugin_system = importlib.import_module("jax2onnx.plugins.plugin_system")
        folder = Path(plugin_system.__file__ or "").parent
        for tree in ("jax", "flax"):
            paths = sorted(path.relative_to(folder) for path in folder.glob(f"{tree}/**/*.py"))
            if not paths:
                return None
            for path in paths:
                module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
                importlib.import_module(f"jax2onnx.plugins.{module}")
    except ImportError:
        return None
    return plugin_system


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off the terminal what jax2onnx does not mean for its users; its warnings get through.

    It reads Flax variables in a deprecated way, and logs to the root logger, which makes Python
    install a handler that would repeat every later message on the terminal.
    """
    handlers = logging.root.handlers[:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logging.root.handlers[:] = handlers
