"""What racks look like on the wire, as data: one folder for each profile."""
