"""The messages and calls of ``inference.GRPCInferenceService``: field numbers and types, as the protocol fixes them. Pure.

Triton's superset of the Open Inference Protocol: what both have is the same on the wire. One line is one field,
``NUMBER NAME TYPE``; ``*`` repeats, ``map TYPE`` maps text to it, ``|`` marks the choices of a oneof. messages.py makes classes
of it, so there is no generated code and no compiler to agree with.
"""

from __future__ import annotations

from typing import Final

PACKAGE: Final = "inference"
SERVICE: Final = "inference.GRPCInferenceService"
HEALTH_PACKAGE: Final = "grpc.health.v1"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"

# Name of a call -> request, response, whether it streams both ways.
CALLS: Final[dict[str, tuple[str, str, bool]]] = {
    "ServerLive": ("ServerLiveRequest", "ServerLiveResponse", False),
    "ServerReady": ("ServerReadyRequest", "ServerReadyResponse", False),
    "ModelReady": ("ModelReadyRequest", "ModelReadyResponse", False),
    "ServerMetadata": ("ServerMetadataRequest", "ServerMetadataResponse", False),
    "ModelMetadata": ("ModelMetadataRequest", "ModelMetadataResponse", False),
    "ModelInfer": ("ModelInferRequest", "ModelInferResponse", False),
    "ModelStreamInfer": ("ModelInferRequest", "ModelStreamInferResponse", True),
    "ModelConfig": ("ModelConfigRequest", "ModelConfigResponse", False),
    "ModelStatistics": ("ModelStatisticsRequest", "ModelStatisticsResponse", False),
    "RepositoryIndex": ("RepositoryIndexRequest", "RepositoryIndexResponse", False),
    "RepositoryModelLoad": ("RepositoryModelLoadRequest", "RepositoryModelLoadResponse", False),
    "RepositoryModelUnload": ("RepositoryModelUnloadRequest", "RepositoryModelUnloadResponse", False),
}

# A message inside another is named Outer.Inner.
MESSAGES: Final = """
ServerLiveRequest
ServerLiveResponse
    1 live bool
ServerReadyRequest
ServerReadyResponse
    1 ready bool
ModelReadyRequest
    1 name string
    2 version string
ModelReadyResponse
    1 ready bool
ServerMetadataRequest
ServerMetadataResponse
    1 name string
    2 version string
    3 extensions *string
ModelMetadataRequest
    1 name string
    2 version string
ModelMetadataResponse
    1 name string
    2 versions *string
    3 platform string
    4 inputs *ModelMetadataResponse.TensorMetadata
    5 outputs *ModelMetadataResponse.TensorMetadata
ModelMetadataResponse.TensorMetadata
    1 name string
    2 datatype string
    3 shape *int64
InferParameter
    1 bool_param bool | parameter_choice
    2 int64_param int64 | parameter_choice
    3 string_param string | parameter_choice
    4 double_param double | parameter_choice
    5 uint64_param uint64 | parameter_choice
InferTensorContents
    1 bool_contents *bool
    2 int_contents *int32
    3 int64_contents *int64
    4 uint_contents *uint32
    5 uint64_contents *uint64
    6 fp32_contents *float
    7 fp64_contents *double
    8 bytes_contents *bytes
ModelInferRequest
    1 model_name string
    2 model_version string
    3 id string
    4 parameters map InferParameter
    5 inputs *ModelInferRequest.InferInputTensor
    6 outputs *ModelInferRequest.InferRequestedOutputTensor
    7 raw_input_contents *bytes
ModelInferRequest.InferInputTensor
    1 name string
    2 datatype string
    3 shape *int64
    4 parameters map InferParameter
    5 contents InferTensorContents
ModelInferRequest.InferRequestedOutputTensor
    1 name string
    2 parameters map InferParameter
ModelInferResponse
    1 model_name string
    2 model_version string
    3 id string
    4 parameters map InferParameter
    5 outputs *ModelInferResponse.InferOutputTensor
    6 raw_output_contents *bytes
ModelInferResponse.InferOutputTensor
    1 name string
    2 datatype string
    3 shape *int64
    4 parameters map InferParameter
    5 contents InferTensorContents
ModelStreamInferResponse
    1 error_message string
    2 infer_response ModelInferResponse
ModelConfigRequest
    1 name string
    2 version string
ModelConfigResponse
    1 config ModelConfig
ModelConfig
    1 name string
    2 platform string
    4 max_batch_size int32
    5 input *ModelInput
    6 output *ModelOutput
    17 backend string
ModelInput
    1 name string
    2 data_type int32
    4 dims *int64
ModelOutput
    1 name string
    2 data_type int32
    3 dims *int64
ModelStatisticsRequest
    1 name string
    2 version string
ModelStatisticsResponse
    1 model_stats *ModelStatistics
ModelStatistics
    1 name string
    2 version string
    3 last_inference uint64
    4 inference_count uint64
    5 execution_count uint64
    6 inference_stats InferStatistics
    7 batch_stats *InferBatchStatistics
InferStatistics
    1 success StatisticDuration
    2 fail StatisticDuration
    3 queue StatisticDuration
    4 compute_input StatisticDuration
    5 compute_infer StatisticDuration
    6 compute_output StatisticDuration
    7 cache_hit StatisticDuration
    8 cache_miss StatisticDuration
InferBatchStatistics
    1 batch_size uint64
    2 compute_input StatisticDuration
    3 compute_infer StatisticDuration
    4 compute_output StatisticDuration
StatisticDuration
    1 count uint64
    2 ns uint64
ModelRepositoryParameter
    1 bool_param bool | parameter_choice
    2 int64_param int64 | parameter_choice
    3 string_param string | parameter_choice
    4 bytes_param bytes | parameter_choice
RepositoryIndexRequest
    1 repository_name string
    2 ready bool
RepositoryIndexResponse
    1 models *RepositoryIndexResponse.ModelIndex
RepositoryIndexResponse.ModelIndex
    1 name string
    2 version string
    3 state string
    4 reason string
RepositoryModelLoadRequest
    1 repository_name string
    2 model_name string
    3 parameters map ModelRepositoryParameter
RepositoryModelLoadResponse
RepositoryModelUnloadRequest
    1 repository_name string
    2 model_name string
    3 parameters map ModelRepositoryParameter
RepositoryModelUnloadResponse
"""

# The status is an enum: 1 serving, 2 not serving, 3 a service that is unknown.
HEALTH_MESSAGES: Final = """
HealthCheckRequest
    1 service string
HealthCheckResponse
    1 status int32
"""

# The numbers of Triton's enum DataType, which a model's configuration names its types by.
CONFIG_TYPES: Final = {
    "BOOL": 1,
    "UINT8": 2,
    "UINT16": 3,
    "UINT32": 4,
    "UINT64": 5,
    "INT8": 6,
    "INT16": 7,
    "INT32": 8,
    "INT64": 9,
    "FP16": 10,
    "FP32": 11,
    "FP64": 12,
    "BYTES": 13,
}
