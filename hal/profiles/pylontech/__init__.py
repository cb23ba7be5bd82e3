"""What an inverter of the de-facto protocol of 48 V batteries ("Pylontech LV") hears, as a DBC."""
