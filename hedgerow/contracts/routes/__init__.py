"""The route language of IoT Edge, read and written; what a condition means is decided on the device."""
