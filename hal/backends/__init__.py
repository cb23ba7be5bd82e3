"""One module for each way to reach a rack; each is imported only when its URL scheme is asked for."""
