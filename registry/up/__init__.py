"""``hedgerow up``: starts the control plane's processes, keeps them alive, stops them in order."""
