"""Why a deployment of Azure IoT Edge is not taken, in words for whoever wrote it."""

from __future__ import annotations

from hedgerow.errors import UserError


class IotEdgeInvalid(UserError):
    """A deployment of IoT Edge that breaks its own rules, or asks for what cannot be here."""

    key = "iot_edge_invalid"
    message = "The IoT Edge deployment is wrong at {place}: {problem}"
    remedy = "{advice}"


class IotEdgeSchemaUnknown(UserError):
    """A schema version that IoT Edge's own agent would answer with the code 412."""

    key = "iot_edge_schema_unknown"
    message = "The IoT Edge deployment has schemaVersion {found} at {place} (412); read are {supported}"
    remedy = "Write the deployment with schemaVersion 1.1."


class IotEdgeVariables(UserError):
    """A deployment template whose variables nobody filled in."""

    key = "iot_edge_variables"
    message = "The deployment template has no value for {names}"
    remedy = "Give each with --variable NAME=VALUE, or deploy the file that `iotedgedev genconfig` makes of the template."


def wrong(place: str, problem: str, advice: str) -> IotEdgeInvalid:
    return IotEdgeInvalid(place=place, problem=problem, advice=advice)
