"""What TensorRT 10 reads: operators of its ONNX parser, and limits of some.

From the table "Supported ONNX Operators" of onnx-tensorrt, ``docs/operators.md`` at its
release 10.0-GA (10.1-GA has the same): all that it marks with Y, for opset 9 to 20, the
five that only opsets before 9 have left out. Later releases of TensorRT 10 add to it.
"""

from onnx import helper, numpy_helper

NAMES = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool
BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv
ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace DequantizeLinear Div Dropout
Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND
Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
GroupNormalization GRU Hardmax HardSigmoid HardSwish Identity If InstanceNormalization
IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop
LpNormalization LpPool LRN LSTM MatMul Max MaxPool Mean MeanVarianceNormalization Min
Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu QuantizeLinear
RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1
ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RNN RoiAlign Round Scan
Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice
Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh
ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
TENSORRT = set(NAMES.split())
MOST = 3840
"""``TopK`` gives fewer than so many."""


def refused(graph):
    """What TensorRT 10 would not read of an ONNX graph, a sentence each."""
    fixed = {x.name: x for x in graph.initializer}
    for node in graph.node:
        settings = {x.name: helper.get_attribute_value(x) for x in node.attribute}
        if limit := _limit(node, settings, fixed):
            yield f'{node.op_type} {node.name}: {limit}'


def _limit(node, settings, fixed):
    kind, inputs = node.op_type, [*node.input, '', '', '', '']
    if kind not in TENSORRT or node.domain:
        return 'not in the table'
    axes = dict(Slice=3, Squeeze=1, Unsqueeze=1, Pad=3, CumSum=1).get(kind)
    if kind.startswith('Reduce'):
        axes = 1
    if axes and inputs[axes] and inputs[axes] not in fixed:
        return 'its axes are computed'
    if kind == 'TopK':
        if not settings.get('sorted', 1):
            return 'it is not sorted'
        number = fixed.get(inputs[1])
        if number is None or numpy_helper.to_array(number).item() >= MOST:
            return f'its number is computed, or {MOST} and more'
    if kind == 'LayerNormalization' and len(node.output) > 1:
        return 'it has more than one output'
    if kind == 'Resize':
        if settings.get('antialias') or settings.get('mode', b'nearest') == b'cubic':
            return 'it is cubic or has antialiasing'
        if settings.get('keep_aspect_ratio_policy', b'stretch') != b'stretch':
            return 'it keeps the ratio of the sides'
    if kind == 'ScatterND' and settings.get('reduction', b'none') != b'none':
        return 'it reduces'
    return None
