"""Work on files that would keep the controller from everything else, as a process of its own: copying, hashing, unpacking."""
