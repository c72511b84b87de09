"""Images on the device: fetched in the background, verified, unpacked."""
