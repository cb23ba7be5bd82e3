"""Connections that watch themselves: opened, judged, and opened again."""
