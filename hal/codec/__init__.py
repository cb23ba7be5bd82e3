"""Bytes to arrays and back, as tables and profiles say: no sockets."""
