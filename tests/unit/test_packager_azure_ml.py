"""Azure ML's scoring server is left out of environments that name it, with a note."""

from __future__ import annotations

from packager.environment.azure_ml import without_server


def test_the_server_goes_and_is_named() -> None:
    kept, notes = without_server(["numpy", "azureml-defaults==1.59", "AzureML_Inference_Server_HTTP>=1.4", "azureml-core"])
    assert kept == ["numpy", "azureml-core"]
    assert len(notes) == 1
    assert notes[0].startswith("azureml-defaults==1.59, AzureML_Inference_Server_HTTP>=1.4 is left out")


def test_nothing_is_said_where_nothing_goes() -> None:
    assert without_server(["numpy", "azureml-defaults-of-mine"]) == (["numpy", "azureml-defaults-of-mine"], [])
