"""Where a module's message goes: the deployment's routes, applied."""
