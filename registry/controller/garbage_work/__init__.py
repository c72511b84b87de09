"""The garbage collection as a process of its own: it reads a million rows and unlinks files, and nothing waits for it."""
