"""The boot loader: small C for a board, and the same C on this computer with a flash in memory."""
