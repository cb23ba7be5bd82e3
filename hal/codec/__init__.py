"""Bytes to arrays and back, pure: no sockets, no files."""
