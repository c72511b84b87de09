"""Which rule each operator follows. One that is not named here is not known, and whatever rows go through it are not either."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from runtime.models.rows import along_axes, elementwise, indexing, products, reshaping, tables
from runtime.models.rows.step import Rule

_VALUE_BY_VALUE = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CastLike Ceil Celu Clip Cos Cosh "
    "Elu Erf Exp Floor Gelu HardSigmoid HardSwish IsInf IsNaN LeakyRelu Log Mean Mish Mod PRelu Pow Reciprocal RegexFullMatch "
    "Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt StringConcat Sum Swish Tan Tanh ThresholdedRelu Xor "
    "And Or Greater GreaterOrEqual Less LessOrEqual "
    "ai.onnx.ml::Binarizer ai.onnx.ml::LabelEncoder ai.onnx.ml::CategoryMapper "
    "com.microsoft::QLinearAdd com.microsoft::QLinearMul com.microsoft::QLinearSigmoid com.microsoft::QLinearLeakyRelu "
    "com.microsoft::BiasGelu com.microsoft::FastGelu com.microsoft::Gelu com.microsoft::QuickGelu"
)
_LENGTHS = "Add Sub Mul Div Neg Max Min Equal Not Where"
_ALONG: Mapping[Rule, str] = MappingProxyType(
    {
        along_axes.reduce: "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
        "ReduceSumSquare",
        along_axes.arg: "ArgMax ArgMin",
        along_axes.softmax: "Softmax LogSoftmax Hardmax",
        along_axes.one_axis: "LpNormalization",
        along_axes.add_up: "CumSum",
        along_axes.top: "TopK",
        along_axes.layer_norm: "LayerNormalization RMSNormalization SimplifiedLayerNormalization",
        along_axes.skip_layer_norm: "com.microsoft::SkipLayerNormalization com.microsoft::SkipSimplifiedLayerNormalization",
        along_axes.each_row: "InstanceNormalization GroupNormalization LRN",
        along_axes.batch_norm: "BatchNormalization",
        along_axes.mean_variance: "MeanVarianceNormalization",
        along_axes.triangle: "Trilu",
        along_axes.pad: "Pad",
        along_axes.resize: "Resize Upsample",
        along_axes.one_hot: "OneHot",
        along_axes.picks_by_value: "NonMaxSuppression NonZero Unique EyeLike StringSplit StringNormalizer",
        along_axes.quantises: "DynamicQuantizeLinear com.microsoft::DynamicQuantizeMatMul com.microsoft::DynamicQuantizeLSTM",
    }
)
_SHAPES: Mapping[Rule, str] = MappingProxyType(
    {
        elementwise.passes: "Identity",
        elementwise.cast: "Cast",
        elementwise.dropout: "Dropout",
        elementwise.random: "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
        elementwise.scaled: "QuantizeLinear DequantizeLinear",
        reshaping.transpose: "Transpose",
        reshaping.reshape: "Reshape",
        reshaping.flatten: "Flatten",
        reshaping.squeeze: "Squeeze",
        reshaping.unsqueeze: "Unsqueeze",
        reshaping.concat: "Concat",
        reshaping.split: "Split",
        reshaping.expand: "Expand",
        reshaping.tile: "Tile",
        reshaping.filled: "ConstantOfShape",
        reshaping.shape_of: "Shape",
        reshaping.size_of: "Size",
        reshaping.numbers_up: "Range",
        indexing.slices: "Slice",
        indexing.gather: "Gather",
        indexing.gather_elements: "GatherElements",
        indexing.gather_nd: "GatherND",
        indexing.scatter_elements: "ScatterElements",
        indexing.scatter_nd: "ScatterND",
        indexing.compress: "Compress",
        indexing.reverse_sequence: "ReverseSequence",
        indexing.array_feature: "ai.onnx.ml::ArrayFeatureExtractor",
    }
)
_PRODUCTS: Mapping[Rule, str] = MappingProxyType(
    {
        products.matmul: "MatMul",
        products.matmul_quantised: "MatMulInteger QLinearMatMul com.microsoft::MatMulIntegerToFloat com.microsoft::MatMulNBits",
        products.gemm: "Gemm",
        products.einsum: "Einsum",
        products.conv: "Conv ConvTranspose ConvInteger QLinearConv com.microsoft::FusedConv",
        products.pool: "AveragePool MaxPool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool",
        products.first_axis: "DepthToSpace SpaceToDepth GridSample",
        products.recurrent: "LSTM GRU RNN",
        products.attention: "Attention RotaryEmbedding com.microsoft::Attention com.microsoft::MultiHeadAttention "
        "com.microsoft::QAttention com.microsoft::RotaryEmbedding",
        products.embedding: "com.microsoft::EmbedLayerNormalization",
        tables.regressor: "ai.onnx.ml::TreeEnsemble ai.onnx.ml::TreeEnsembleRegressor ai.onnx.ml::LinearRegressor "
        "ai.onnx.ml::SVMRegressor",
        tables.classifier: "ai.onnx.ml::TreeEnsembleClassifier ai.onnx.ml::LinearClassifier ai.onnx.ml::SVMClassifier",
        tables.columns: "ai.onnx.ml::Scaler ai.onnx.ml::Imputer ai.onnx.ml::Normalizer",
        tables.codes: "ai.onnx.ml::OneHotEncoder",
        tables.side_by_side: "ai.onnx.ml::FeatureVectorizer",
        tables.maps: "ai.onnx.ml::ZipMap",
    }
)


def _table() -> dict[str, Rule]:
    found: dict[str, Rule] = dict.fromkeys(_VALUE_BY_VALUE.split(), elementwise.elementwise)
    found |= dict.fromkeys(_LENGTHS.split(), elementwise.lengths)
    for part in (_ALONG, _SHAPES, _PRODUCTS):
        for rule, names in part.items():
            found |= dict.fromkeys(names.split(), rule)
    return found


RULES: Mapping[str, Rule] = MappingProxyType(_table())
# These are asked even about values that are mixed or not known, since lengths may be known all the same.
OF_SHAPES: frozenset[Rule] = frozenset({reshaping.shape_of, reshaping.size_of, elementwise.elementwise, elementwise.lengths})
# These know what to do with the number of rows as a value.
OF_LENGTHS: frozenset[Rule] = frozenset(
    {
        *OF_SHAPES,
        *(elementwise.passes, elementwise.cast, along_axes.reduce, along_axes.resize),
        *(reshaping.reshape, reshaping.squeeze, reshaping.unsqueeze, reshaping.concat, reshaping.split, reshaping.expand),
        *(reshaping.tile, reshaping.filled, reshaping.numbers_up, indexing.slices, indexing.gather),
    }
)
