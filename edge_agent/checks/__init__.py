"""``check``: what could keep an agent from running well on this device; each looks only, and changes nothing."""
