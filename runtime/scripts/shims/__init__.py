"""The packages that scoring scripts import from Azure ML, for machines where they are not installed (finder.py has the list).

Facts and names are those of azureml-inference-server-http 1.5, azureml-contrib-services and inference-schema 1.8 (all MIT);
the code is ours. inference-schema itself pins wrapt to a version that other packages no longer take, so it is no dependency;
an image that has it uses it.
"""
