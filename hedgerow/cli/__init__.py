"""The command line: parse, call the SDK or start a process, print. No logic of its own."""
