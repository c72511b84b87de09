"""The control plane: store, REST API, hub, controller and Studio of one workspace."""
