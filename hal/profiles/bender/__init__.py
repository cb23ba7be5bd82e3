"""Bender ISO165C insulation monitors, an add-on for CAN profiles."""
