"""Who is who in a workspace: its authority and certificates, the keys that sign, and what devices prove themselves with."""
