"""The documents and names that cross a process boundary. Importing a contract never imports the SDK or a component."""
