"""The twin: physics of cells, racks and their sensors in float64. Imports nothing of the other packages."""
