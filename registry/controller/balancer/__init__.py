"""Routes requests for endpoints to replicas. ``port.py`` says what services want of a balancer; HAProxy does it."""
