"""Faults that an operator orders on a device of their own, to see the promises kept: ``hedgerow agent chaos``."""
