"""Twins of modules on the device: what they report is kept here, what is desired of them is told from here."""
