"""The opposite side of the backends: a rack offered as a device on a bus."""
