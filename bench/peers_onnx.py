"""Our networks in ONNX's format, and the two programs that run it: ONNX Runtime and OpenVINO.

Imported only where ONNX is installed: its builders take a model and the number of threads.
"""

import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bench.networks import window
from layers import BatchNorm, Conv, Dense, Flatten, Layer, LeakyRelu, MaxPool, Relu, Softmax
from training import Model

# Inputs of a node behind the activations, in ONNX's order.
ARRAYS = {
    Conv: ("weights", "bias"),
    Dense: ("weights", "bias"),
    BatchNorm: ("gamma", "beta", "running_mean", "running_variance"),
}


def operation(layer: Layer) -> tuple[str, dict]:
    """Return ONNX's operator for a built layer, and its attributes."""
    match layer:
        case Conv() | MaxPool():
            place = window(layer)
            (top, bottom), (left, right) = place.padding
            attributes = {
                "kernel_shape": place.size,
                "strides": place.stride,
                "dilations": place.dilation,
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
        case Flatten():
            return "Flatten", {}
    raise TypeError(f"there is no ONNX operator for the layer {layer}")


def graph(model: Model) -> bytes:
    """Return a trained model as the bytes of an ONNX file, up to the logits."""
    nodes, weights, flows = [], [], "images"
    for layer in model.layers:
        if isinstance(layer, Softmax):
            continue
        kind, attributes = operation(layer)
        names = [name for name in ARRAYS.get(type(layer), ()) if name in layer.arrays]
        inputs = [f"{layer.name}.{name}" for name in names]
        for name, key in zip(names, inputs, strict=True):
            weights.append(numpy_helper.from_array(layer.arrays[name], key))
        output = f"{layer.name}.output"
        nodes.append(helper.make_node(kind, [flows, *inputs], [output], **attributes))
        flows = output
    real = TensorProto.FLOAT
    made = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", real, ["N", *model.input_shape])],
        [helper.make_tensor_value_info(flows, real, ["N", model.classes])],
        weights,
    )
    # Versions that older runtimes know as well.
    opset = helper.make_opsetid("", 17)
    return helper.make_model(made, opset_imports=[opset], ir_version=8).SerializeToString()


def infer_onnxruntime(model: Model, threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph(model), options, ["CPUExecutionProvider"])

    def logits(x: np.ndarray) -> np.ndarray:
        return session.run(None, {"images": x})[0]

    return logits


def infer_openvino(model: Model, threads: int):
    # OpenVINO reports each use to its makers, and forks for it, which JAX's threads do not allow.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",  # all threads on one batch
        "INFERENCE_PRECISION_HINT": "f32",  # as all others; it would take bfloat16 where it can
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(graph(model)), "CPU", settings)
    request = request.create_infer_request()

    def logits(x: np.ndarray) -> np.ndarray:
        return request.infer([x], share_inputs=True)[0]

    return logits
