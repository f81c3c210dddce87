"""The four heads as an ONNX graph for onnxruntime, the same integers: a rival for one event at a time.

Products run as float32 matrix products, exact below 2**23 as in score/torch_scorer.py; a rounding shift is a product
with a power of two and a floor, exact too; squares and their sums are int64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.spec.features import ALL_MASK
from microrisk.spec.formats import CODE
from microrisk.spec.weightfile import LAYERS
from microrisk.weights import Weights

OPSET = 18


class OnnxScorer:
    """Weights.compute in onnxruntime, one thread; `load` and `score` as of the Scorer protocol."""

    name = "onnxruntime"

    def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
        """Build the graph and a session. Only all features are supported: this is a rival, not a back end."""
        import onnxruntime

        if mask != ALL_MASK:
            raise ValueError(f"the ONNX rival is built for all features, not for mask {mask:08x}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = _Builder(weights).model()
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    def score(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """int8[n, 32] -> int32[n, 4]."""
        found: NDArray[np.int32] = self._session.run(["heads"], {"codes": codes})[0]
        return found


class _Builder:
    def __init__(self, weights: Weights) -> None:
        self.weights, self.nodes, self.constants = weights, [], []

    def model(self) -> Any:
        from onnx import TensorProto, helper

        x = self.op("Cast", "codes", to=TensorProto.FLOAT)
        mu = self.chain(x, "vae.enc")
        residual = self.op("Sub", x, self.chain(mu, "vae.dec"))
        exponents = self.weights.tensors["vae.residual_exp"].astype(np.int64)
        latent = int(self.weights.tensors["vae.latent_exp"][0])
        vae = self.op("Add", self.squares(residual, 1 << exponents), self.squares(mu, np.int64(1 << latent)))
        maxz = self.op("ReduceMax", self.whole(self.op("Abs", x)), self.constant(np.array([1])), keepdims=1)
        maha = self.squares(self.chain(x, "maha"), np.int64(1))
        columns = [maxz, maha, vae, self.whole(self.chain(x, "exposure"))]
        joined = self.op("Concat", *columns, axis=1)
        self.nodes.append(helper.make_node("Cast", [joined], ["heads"], to=TensorProto.INT32))
        graph = helper.make_graph(
            self.nodes, "heads",
            [helper.make_tensor_value_info("codes", TensorProto.INT8, ["n", LAYERS["maha.0"][1]])],
            [helper.make_tensor_value_info("heads", TensorProto.INT32, ["n", 4])], self.constants,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)

    def chain(self, x: str, net: str) -> str:
        for name in (n for n in LAYERS if n.rpartition(".")[0] == net):
            weight, bias, shift = (t.astype(np.int64) for t in self.weights.layer(name))
            product = self.op("MatMul", x, self.constant(weight.T.astype(np.float32)))
            activation = LAYERS[name][2]
            if activation == "acc":
                x = self.op("Add", product, self.constant(bias.astype(np.float32)))
                continue
            half = np.where(shift > 0, 1 << np.maximum(shift - 1, 0), 0)
            rounded = self.op("Add", product, self.constant((bias + half).astype(np.float32)))
            scaled = self.op("Floor", self.op("Mul", rounded, self.constant(np.exp2(-shift).astype(np.float32))))
            low = 0 if activation == "relu" else CODE.low
            x = self.op("Clip", scaled, self.constant(np.float32(low)), self.constant(np.float32(CODE.high)))
        return x

    def squares(self, x: str, weight: Any) -> str:
        whole = self.whole(x)
        weighted = self.op("Mul", self.op("Mul", whole, whole), self.constant(np.asarray(weight)))
        return self.op("ReduceSum", weighted, self.constant(np.array([1])), keepdims=1)

    def whole(self, x: str) -> str:
        from onnx import TensorProto

        return self.op("Cast", x, to=TensorProto.INT64)

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name
