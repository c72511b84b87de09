"""What runs modules: the port, processes, containers, and the probes that ask whether modules are well."""
