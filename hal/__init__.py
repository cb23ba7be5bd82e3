"""Hardware abstraction layer: everything between the controller and whatever holds the cells."""
