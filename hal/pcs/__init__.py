"""Northbound: what the inverter (PCS) and the energy manager see of a rack."""
