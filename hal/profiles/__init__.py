"""What real racks look like on the wire, as data: files that say what is where, and which channel it feeds."""
