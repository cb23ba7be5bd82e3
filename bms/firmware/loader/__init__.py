"""The boot loader on a board: what it is made of, and the flash that an emulated board keeps in a file."""
