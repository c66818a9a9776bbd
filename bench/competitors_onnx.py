"""The benchmark's networks in the ONNX format, run by ONNX Runtime and by OpenVINO.

Imported only where ONNX is installed. Each builder takes a model, the number of threads and the
size of the batches: with a fixed shape the runtimes plan their memory and kernels once.
"""

import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bench.networks import window
from layers import (
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layer,
    LeakyRelu,
    MaxPool,
    Relu,
    Residual,
    Softmax,
)
from training import Model

# The inputs of a node that follow its activations, in the order of the ONNX operators.
ARRAYS = {
    Conv: ("weights", "bias"),
    Dense: ("weights", "bias"),
    BatchNorm: ("gamma", "beta", "running_mean", "running_variance"),
}


def operation(layer: Layer) -> tuple[str, dict]:
    """Return the ONNX operator of a built layer, and its attributes."""
    match layer:
        case Conv() | MaxPool():
            geometry = window(layer)
            (top, bottom), (left, right) = geometry.padding
            attributes = {
                "kernel_shape": geometry.size,
                "strides": geometry.stride,
                "dilations": geometry.dilation,
                "pads": (top, left, bottom, right),
            }
            if isinstance(layer, Conv):
                return "Conv", {**attributes, "group": layer.groups}
            return "MaxPool", attributes
        case Dense():
            return "Gemm", {}
        case BatchNorm():
            return "BatchNormalization", {"epsilon": layer.epsilon}
        case Relu():
            return "Relu", {}
        case LeakyRelu():
            return "LeakyRelu", {"alpha": layer.negative_slope}
        case GlobalAvgPool():
            return "ReduceMean", {"axes": (2, 3), "keepdims": 0}
        case Flatten():
            return "Flatten", {}
    raise TypeError(f"layer {layer} has no ONNX operator")


class GraphBuilder:
    """The nodes and weights of an ONNX graph, to which layers are added."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.weights: list = []

    def add_path(self, layers: list[Layer], current: str) -> str:
        """Add layers that run one after the other; return the name of their output."""
        for layer in layers:
            current = self.add(layer, current)
        return current

    def add(self, layer: Layer, current: str) -> str:
        """Add a layer with this input; return the name of its output."""
        if isinstance(layer, Residual):
            paths = [self.add_path(path, current) for path in (layer.body, layer.shortcut)]
            return self.add_node("Add", paths, f"{layer.name}.output")
        kind, attributes = operation(layer)
        names = [name for name in ARRAYS.get(type(layer), ()) if name in layer.arrays]
        inputs = [f"{layer.name}.{name}" for name in names]
        for name, key in zip(names, inputs, strict=True):
            self.weights.append(numpy_helper.from_array(layer.arrays[name], key))
        return self.add_node(kind, [current, *inputs], f"{layer.name}.output", **attributes)

    def add_node(self, kind: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output


def graph(model: Model, batch: int) -> bytes:
    """Return a trained model, up to the logits, as an ONNX file for batches of this size."""
    builder = GraphBuilder()
    layers = [layer for layer in model.layers if not isinstance(layer, Softmax)]
    output = builder.add_path(layers, "images")
    float32 = TensorProto.FLOAT
    graph_proto = helper.make_graph(
        builder.nodes,
        "network",
        [helper.make_tensor_value_info("images", float32, [batch, *model.input_shape])],
        [helper.make_tensor_value_info(output, float32, [batch, model.classes])],
        builder.weights,
    )
    # Older runtimes support these versions too.
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph_proto, opset_imports=[opset], ir_version=8).SerializeToString()


def infer_onnxruntime(model: Model, threads: int, batch: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph(model, batch), options, ["CPUExecutionProvider"])

    def logits(x: np.ndarray) -> np.ndarray:
        return session.run(None, {"images": x})[0]

    return logits


def infer_openvino(model: Model, threads: int, batch: int):
    # OpenVINO's telemetry forks, which is unsafe with JAX's threads.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",  # all threads on one batch
        # As the others. The default is bfloat16 on processors that have it.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph(model, batch)), "CPU", settings)
    check_float32(precisions(compiled))
    request = compiled.create_infer_request()

    def logits(x: np.ndarray) -> np.ndarray:
        return request.infer([x], share_inputs=True)[0]

    return logits


def precisions(compiled) -> set[str]:
    """Return the names of the precisions in which OpenVINO runs the operations of a model."""
    infos = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    return {info["runtimePrecision"].value for info in infos if "runtimePrecision" in info}


def check_float32(names: set[str]) -> None:
    """Raise a RuntimeError when operations run in another floating-point precision."""
    others = {name for name in names if name.startswith(("f", "bf"))} - {"f32"}
    if others:
        raise RuntimeError(f"runs in {', '.join(sorted(others))} instead of float32")
