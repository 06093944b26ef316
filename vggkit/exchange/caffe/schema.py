"""Caffe's messages, as far as chains of layers have them. Source: src/caffe/proto/caffe.proto in BVLC/caffe."""

from __future__ import annotations

from vggkit.exchange.messages import Boolean, Choice, Field, Integer, Real, Schema, Submessage, Text, fields

INTEGER, BOOLEAN, FLOAT, DOUBLE, TEXT = Integer(), Boolean(), Real(), Real(double=True), Text()


SHAPE = Schema("BlobShape", {"dim": Field(1, INTEGER, joined=True)})

BLOB = Schema(
    "BlobProto",
    {
        "shape": Field(7, Submessage(SHAPE)),
        "data": Field(5, FLOAT, joined=True),
        "double_data": Field(8, DOUBLE, joined=True),
        **fields(INTEGER, "1:num", "2:channels", "3:height", "4:width"),
    },
)

PHASE = Choice({"TRAIN": 0, "TEST": 1})

RULE = Schema(
    "NetStateRule",
    {
        "phase": Field(1, PHASE),
        **fields(INTEGER, "2:min_level", "3:max_level"),
        **fields(TEXT, "4:stage", "5:not_stage"),
    },
)

FILLER = Schema("FillerParameter", {})

WINDOW = fields(INTEGER, "9:pad_h", "10:pad_w")

CONVOLUTION = Schema(
    "ConvolutionParameter",
    {
        **fields(INTEGER, "1:num_output", "3:pad", "4:kernel_size", "6:stride", "18:dilation", "5:group", "16:axis"),
        **fields(INTEGER, "11:kernel_h", "12:kernel_w", "13:stride_h", "14:stride_w"),
        **WINDOW,
        **fields(BOOLEAN, "2:bias_term", "17:force_nd_im2col"),
        **fields(Submessage(FILLER), "7:weight_filler", "8:bias_filler"),
        "engine": Field(15, Choice({"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2})),
    },
)

POOLING = Schema(
    "PoolingParameter",
    {
        "pool": Field(1, Choice({"MAX": 0, "AVE": 1, "STOCHASTIC": 2})),
        **fields(INTEGER, "4:pad", "2:kernel_size", "3:stride", "5:kernel_h", "6:kernel_w", "7:stride_h", "8:stride_w"),
        **WINDOW,
        "global_pooling": Field(12, BOOLEAN),
        "round_mode": Field(13, Choice({"CEIL": 0, "FLOOR": 1})),
        "ceil_mode": Field(10_013, BOOLEAN),  # OpenCV's word for round_mode, in texts; its number is round_mode's
        "engine": Field(11, Choice({"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2})),
    },
)

INNER_PRODUCT = Schema(
    "InnerProductParameter",
    {
        **fields(INTEGER, "1:num_output", "5:axis"),
        **fields(BOOLEAN, "2:bias_term", "6:transpose"),
        **fields(Submessage(FILLER), "3:weight_filler", "4:bias_filler"),
    },
)

LRN = Schema(
    "LRNParameter",
    {
        "local_size": Field(1, INTEGER),
        **fields(FLOAT, "2:alpha", "3:beta", "5:k"),
        "norm_region": Field(4, Choice({"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1})),
        "engine": Field(6, Choice({"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2})),
    },
)

BATCH_NORM = Schema(
    "BatchNormParameter",
    {"use_global_stats": Field(1, BOOLEAN), **fields(FLOAT, "2:moving_average_fraction", "3:eps")},
)

SCALE = Schema(
    "ScaleParameter",
    {
        **fields(INTEGER, "1:axis", "2:num_axes"),
        "bias_term": Field(4, BOOLEAN),
        **fields(Submessage(FILLER), "3:filler", "5:bias_filler"),
    },
)

DROPOUT = Schema("DropoutParameter", {"dropout_ratio": Field(1, FLOAT), "scale_train": Field(2, BOOLEAN)})

RELU = Schema(
    "ReLUParameter",
    {"negative_slope": Field(1, FLOAT), "engine": Field(2, Choice({"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2}))},
)

ELU = Schema("ELUParameter", {"alpha": Field(1, FLOAT)})

SWISH = Schema("SwishParameter", {"beta": Field(1, FLOAT)})

CLIP = Schema("ClipParameter", fields(FLOAT, "1:min", "2:max"))

ENGINE_ONLY = Schema("", {"engine": Field(1, Choice({"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2}))})

SOFTMAX = Schema(
    "SoftmaxParameter", {"engine": Field(1, Choice({"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2})), "axis": Field(2, INTEGER)}
)

LOG = Schema("LogParameter", fields(FLOAT, "1:base", "2:scale", "3:shift"))

FLATTEN = Schema("FlattenParameter", fields(INTEGER, "1:axis", "2:end_axis"))

INPUT = Schema("InputParameter", {"shape": Field(1, Submessage(SHAPE))})

TRANSFORM = Schema(
    "TransformationParameter",
    {
        **fields(FLOAT, "1:scale", "5:mean_value"),
        **fields(INTEGER, "3:crop_size"),
        "mean_file": Field(4, TEXT),
        **fields(BOOLEAN, "2:mirror", "6:force_color", "7:force_gray"),
    },
)

DATA = Schema(
    "DataParameter",
    {
        "scale": Field(2, FLOAT),
        "mean_file": Field(3, TEXT),
        "crop_size": Field(5, INTEGER),
        "mirror": Field(6, BOOLEAN),
    },
)

IMAGE_DATA = Schema(
    "ImageDataParameter",
    {**DATA.fields, **fields(INTEGER, "9:new_height", "10:new_width"), "is_color": Field(11, BOOLEAN)},
)

MEMORY_DATA = Schema("MemoryDataParameter", fields(INTEGER, "2:channels", "3:height", "4:width"))

DUMMY_DATA = Schema(
    "DummyDataParameter",
    {"shape": Field(6, Submessage(SHAPE)), **fields(INTEGER, "3:channels", "4:height", "5:width")},
)

PARAM = Schema("ParamSpec", {"name": Field(1, TEXT), **fields(FLOAT, "3:lr_mult", "4:decay_mult")})

OPTIONS: dict[str, tuple[Schema, int, int]] = {
    "convolution_param": (CONVOLUTION, 106, 10),
    "pooling_param": (POOLING, 121, 19),
    "inner_product_param": (INNER_PRODUCT, 117, 17),
    "lrn_param": (LRN, 118, 18),
    "dropout_param": (DROPOUT, 108, 12),
    "relu_param": (RELU, 123, 30),
    "sigmoid_param": (ENGINE_ONLY, 124, 38),
    "tanh_param": (ENGINE_ONLY, 127, 37),
    "softmax_param": (SOFTMAX, 125, 39),
    "transform_param": (TRANSFORM, 100, 36),
    "data_param": (DATA, 107, 11),
    "image_data_param": (IMAGE_DATA, 115, 15),
    "memory_data_param": (MEMORY_DATA, 119, 22),
    "dummy_data_param": (DUMMY_DATA, 109, 26),
    "batch_norm_param": (BATCH_NORM, 139, 0),
    "scale_param": (SCALE, 142, 0),
    "elu_param": (ELU, 140, 0),
    "swish_param": (SWISH, 147, 0),
    "clip_param": (CLIP, 148, 0),
    "log_param": (LOG, 134, 0),
    "flatten_param": (FLATTEN, 135, 0),
    "input_param": (INPUT, 143, 0),
}
"""The options of each type of layer: their message, and its number in LayerParameter and in V1LayerParameter."""

LAYER = Schema(
    "LayerParameter",
    {
        **fields(TEXT, "1:name", "2:type", "3:bottom", "4:top"),
        "phase": Field(10, PHASE),
        "param": Field(6, Submessage(PARAM)),
        "blobs": Field(7, Submessage(BLOB)),
        **fields(Submessage(RULE), "8:include", "9:exclude"),
        **{word: Field(number, Submessage(schema)) for word, (schema, number, _) in OPTIONS.items()},
    },
)

OLD_TYPES = {
    "NONE": 0, "ACCURACY": 1, "BNLL": 2, "CONCAT": 3, "CONVOLUTION": 4, "DATA": 5, "DROPOUT": 6, "EUCLIDEAN_LOSS": 7,
    "FLATTEN": 8, "HDF5_DATA": 9, "HDF5_OUTPUT": 10, "IM2COL": 11, "IMAGE_DATA": 12, "INFOGAIN_LOSS": 13,
    "INNER_PRODUCT": 14, "LRN": 15, "MULTINOMIAL_LOGISTIC_LOSS": 16, "POOLING": 17, "RELU": 18, "SIGMOID": 19,
    "SOFTMAX": 20, "SOFTMAX_LOSS": 21, "SPLIT": 22, "TANH": 23, "WINDOW_DATA": 24, "ELTWISE": 25, "POWER": 26,
    "SIGMOID_CROSS_ENTROPY_LOSS": 27, "HINGE_LOSS": 28, "MEMORY_DATA": 29, "ARGMAX": 30, "THRESHOLD": 31,
    "DUMMY_DATA": 32, "SLICE": 33, "MVN": 34, "ABSVAL": 35, "SILENCE": 36, "CONTRASTIVE_LOSS": 37, "EXP": 38,
    "DECONVOLUTION": 39,
}  # fmt: skip
"""The types of layers before they were words of any kind."""

NEW_TYPES = {
    "INNER_PRODUCT": "InnerProduct", "RELU": "ReLU", "LRN": "LRN", "TANH": "TanH", "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "HDF5_DATA": "HDF5Data", "IMAGE_DATA": "ImageData", "MEMORY_DATA": "MemoryData", "DUMMY_DATA": "DummyData",
    "WINDOW_DATA": "WindowData", "EUCLIDEAN_LOSS": "EuclideanLoss", "INFOGAIN_LOSS": "InfogainLoss",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss", "HINGE_LOSS": "HingeLoss",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss", "CONTRASTIVE_LOSS": "ContrastiveLoss",
}  # fmt: skip
"""What those are called today; the others are the same word with one large letter."""

OLD_LAYER = Schema(
    "V1LayerParameter",
    {
        **fields(TEXT, "4:name", "2:bottom", "3:top", "1001:param"),
        "type": Field(5, Choice(OLD_TYPES)),
        "blobs": Field(6, Submessage(BLOB)),
        **fields(Submessage(RULE), "32:include", "33:exclude"),
        "layer": Field(1, Submessage(Schema("V0LayerParameter", {"name": Field(1, TEXT)}))),
        **{word: Field(number, Submessage(schema)) for word, (schema, _, number) in OPTIONS.items() if number},
    },
)

NET = Schema(
    "NetParameter",
    {
        "name": Field(1, TEXT),
        "input": Field(3, TEXT),
        "input_shape": Field(8, Submessage(SHAPE)),
        "input_dim": Field(4, INTEGER),
        "layers": Field(2, Submessage(OLD_LAYER)),
        "layer": Field(100, Submessage(LAYER)),
    },
)
