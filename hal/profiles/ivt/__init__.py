"""Isabellenhuette IVT-S current sensors, an add-on for CAN profiles."""
