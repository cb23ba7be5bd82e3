"""foxBMS 2 on CAN: a unit of it as a rack, and a rack as the measuring electronics of a unit."""
