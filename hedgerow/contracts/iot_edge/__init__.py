"""Azure IoT Edge's deployment JSON, read into our EdgeDeployment. ``read.py`` is the story; nothing here does any I/O."""
