"""HTTP/1.1 on an event loop: connections, limits, time-outs and order. Knows no models and no contracts."""
